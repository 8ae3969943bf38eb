import json

import annotated_scenes as scenes
import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')


def edited(root, change, form='labelme'):
    options = scenes.options(root, form)
    path = root / 'json' / 'a.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return options


def shape(**changes):
    return lambda content: content['shapes'][0].update(changes)


def mask_shape(points, mask):
    return shape(shape_type='mask', points=points, mask=mask)


PNG = scenes.png_text(np.ones((3, 4), np.uint8))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (shape(points=[['nan', 1], [2, 3], [4, 5]]), 'Shape 0 in .*not finite'),
        (shape(points=[[1e9, 1], [2, 3], [4, 5]]), 'Shape 0 in .*far outside its image'),
        (shape(points=[[1], [2, 3], [4, 5]]), r"'points' must be a list of \[x, y\] pairs"),
        (shape(points=[1, 2, 3, 4, 5, 6]), r"'points' must be a list of \[x, y\] pairs"),
        (shape(points=None), r"'points' must be a list of \[x, y\] pairs"),
        (shape(points=[[{}, 1], [2, 3], [4, 5]]), 'no list of numbers'),
        (shape(shape_type='circle'), 'is a circle of 6 points: expected 2'),
        (shape(shape_type='rectangle'), 'is a rectangle of 6 points: expected 2'),
        (shape(shape_type='star'), "shape_type 'star': expected one of polygon, rectangle"),
        (shape(label=None), r"shapes\[0\] is no object with a 'label'"),
        (shape(group_id=[1]), r"'group_id' must be a number, got \[1\]"),
        (lambda c: c['shapes'].append('x'), r'shapes\[3\] is no object'),
        (lambda c: c.update(imagePath=None), "has no 'imagePath'"),
        (lambda c: c.update(imageHeight='60'), "needs 'imageHeight' and 'imageWidth'.*'60', 80"),
        (lambda c: c.update(imageHeight=None), "needs 'imageHeight' and 'imageWidth'.*None, 80"),
        (lambda c: c.update(imagePath='c.jpg'), 'c.jpg is annotated twice: a in .*, c in '),
        (mask_shape([[1, 1], [4, 3]], None), "'mask' is no PNG of its points: expected text"),
        (mask_shape([[1, 1], [4, 3]], 'x'), "'mask' is no PNG of its points"),
        (mask_shape([[1, 1], [4, 3]], 'AAAA'), "'mask' is no PNG of its points"),
        (mask_shape([[1, 1], [4, 3]], PNG[:60]), "'mask' is no PNG of its points"),
        (mask_shape([[1, 1], [7, 3]], PNG), r'it is \(4, 3\) .*its points are for \(7, 3\)'),
        (mask_shape([[1, 1]], PNG), 'is a mask of 1 points: expected 2'),
        (
            mask_shape([[1, 1], [4, 3]], scenes.png_text(np.ones((3, 4, 3), np.uint8))),
            'mode RGB, expected one channel',
        ),
    ],
)
@pytest.mark.bad_input(15, 16, 27, 28, 30, 36)
def test_wrong_records_name_file_and_shape(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as error:
        BoxPromptDataset(**edited(tmp_path, change))
    assert '\n' not in str(error.value) and 'a.json' in str(error.value)


def boxes(root, change):
    return BoxPromptDataset(**edited(root, change))[0]['boxes'].tolist()


@pytest.mark.bad_input(29)
def test_points_and_lines_are_left_out_and_counted(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmsam.datasets.readers.problems.print_log', lambda text, **options: lines.append(text)
    )

    def change(content):
        for kind in ('point', 'line', 'linestrip'):
            content['shapes'].append(dict(label='bird', shape_type=kind, points=[[1, 1], [2, 2]]))
        content['shapes'].append(dict(label='cat', points=[[1, 1], [2, 2]]))

    assert boxes(tmp_path, change) == scenes.BOXES['a']
    assert '3 points and lines left out (shape 3 of a.json, ' in lines[0]
    assert '1 polygons with fewer than 3 points left out (shape 6 of a.json)' in lines[0]


@pytest.mark.parametrize(
    ('change', 'box'),
    [
        (shape(shape_type='rectangle', points=[[20, 9], [5, 3]]), [5, 3, 20, 9]),
        (
            shape(shape_type='rectangle', points=[[5, 3], [20, 3], [20, 9], [5, 9]]),
            [5, 3, 20, 9],
        ),
        (shape(shape_type='circle', points=[[20, 30], [23, 34]]), [15, 25, 25, 35]),
        (shape(shape_type=None), [10, 5, 30, 25]),
        (mask_shape([[1, 2], [4, 4]], PNG), [1, 2, 5, 5]),
        (mask_shape([[1, 2], [5, 5]], PNG), [1, 2, 5, 5]),  # as others count the last point
        (mask_shape([[0.6, 2.4], [4.2, 4.3]], PNG), [1, 2, 5, 5]),
        (mask_shape([[-2, -1], [1, 1]], PNG), [0, 0, 2, 2]),
        (mask_shape([[78, 58], [81, 60]], PNG), [78, 58, 80, 60]),
    ],
)
@pytest.mark.bad_input(32)
def test_shapes(tmp_path, change, box):
    assert boxes(tmp_path, change)[0] == box


def test_groups_are_of_one_label(tmp_path):
    def change(content):
        for number, part in enumerate(content['shapes']):
            part['group_id'] = 3 if number else None
        content['shapes'][2]['label'] = 'cat'

    # the L, and the dog's two parts, which are now a dog and a cat
    assert boxes(tmp_path, change) == [[10, 5, 30, 25], [40, 30, 50, 40], [60, 45, 70, 58]]


def test_parts_of_any_shape_are_united(tmp_path):
    def change(content):
        second = content['shapes'][1]
        (x, y), _, (right, bottom), _ = second['points']
        second.update(shape_type='mask', points=[[x, y], [right - 1, bottom - 1]])
        second['mask'] = scenes.png_text(np.full((10, 10), 255, np.uint8))

    rle = BoxPromptDataset(**edited(tmp_path, change))[0]['rles'][1]
    assert np.array_equal(mask_api.decode(rle), scenes.masks('a')[1])


def test_files_without_a_size_are_of_their_image_s(tmp_path):
    def change(content):
        del content['imageHeight'], content['imageWidth']

    sample = BoxPromptDataset(**edited(tmp_path, change))[0]
    assert (sample['height'], sample['width']) == (60, 80)


@pytest.mark.bad_input(13)
def test_images_that_are_missing(tmp_path):
    options = edited(tmp_path, lambda content: content.update(imagePath='d.jpg'))
    with pytest.raises(DataError, match=r'1 of 3 image files are missing: .*images/d\.jpg'):
        BoxPromptDataset(**options)


@pytest.mark.bad_input(42)
def test_another_size_than_the_image_s(tmp_path):
    options = edited(tmp_path, lambda content: content.update(imageHeight=80, imageWidth=60))
    dataset = BoxPromptDataset(**options, pipeline=[dict(type='LoadSAMImage')], boxes_from='mask')
    with pytest.raises(
        DataError, match=r'a\.jpg is 60x80 .* its annotation .*a\.json is for 80x60'
    ):
        dataset[0]


def test_subfolders_and_files_beside_the_images(tmp_path):
    options = scenes.options(tmp_path, 'labelme')
    for folder, suffix in (('images', 'jpg'), ('json', 'json')):
        (tmp_path / folder / 'x').mkdir()
        (tmp_path / folder / f'a.{suffix}').rename(tmp_path / folder / 'x' / f'a.{suffix}')
    dataset = BoxPromptDataset(**options)
    assert [dataset[index]['img_id'] for index in (0, 1)] == ['c', 'x/a']
    assert dataset[1]['boxes'].tolist() == scenes.BOXES['a']
    for path in (tmp_path / 'json').rglob('*.json'):
        path.rename(tmp_path / 'images' / path.relative_to(tmp_path / 'json'))
    options['reader'] = dict(type='labelme')
    assert len(BoxPromptDataset(**options)) == 2


def test_a_class_that_no_shape_has(tmp_path):
    options = scenes.options(tmp_path, 'labelme')
    with pytest.raises(ConfigError, match="class of .*json must be one of cat, dog, got 'dgo'"):
        BoxPromptDataset(**options, metainfo=dict(classes=['dgo']))
