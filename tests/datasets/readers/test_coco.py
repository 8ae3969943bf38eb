import json

import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmsam.datasets.readers import CocoReader
from mmsam.errors import DataError


def read(world, content=None, **options):
    if content is not None:
        world.write_json(content)
    reader = CocoReader(str(world.root), 'ann.json', **options)
    classes, images = reader.read_images(world.root / 'images', None)
    return {image.img_id: reader.read_objects(image) for image in images}


def with_segmentation(world, segmentation):
    content = world.coco_dict()
    content['annotations'][0]['segmentation'] = segmentation
    return content


NAN, INF = 'nan', 'inf'  # as text, in which numbers may be given
SQUARE = [10, 5, 20, 5, 20, 25, 10, 25]


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ([[NAN, *SQUARE[1:]]], 'not finite'),
        ([[INF, *SQUARE[1:]]], 'not finite'),
        ([[None, *SQUARE[1:]]], 'not finite'),
        ([[1e9, *SQUARE[1:]]], r'point \(1000000000.0, 5.0\) far outside'),
        ([[10**400, *SQUARE[1:]]], 'no list of numbers'),
        ([['x', *SQUARE[1:]]], 'no list of numbers'),
        ([[[10, 5], [20, 5], [20, 25]]], 'must be a list x1'),
        (SQUARE, 'must be a list x1'),
        ([SQUARE[:-1]], '7 numbers'),
        ('polygon', 'must be polygons or an RLE'),
        ({'size': [30, 40], 'counts': [1200]}, r'size \[30, 40\].*\[60, 80\]'),
        ({'counts': [4800]}, 'size None'),
        ({'size': [60, 80]}, 'NoneType'),
        ({'size': [60, 80], 'counts': [4000, 799]}, 'covers 4799 pixels'),
        ({'size': [60, 80], 'counts': [4000, 801]}, 'covers 4801 pixels'),
        ({'size': [60, 80], 'counts': []}, 'covers 0'),
        ({'size': [60, 80], 'counts': [4801, -1]}, 'runs outside'),
        ({'size': [60, 80], 'counts': [10**10]}, 'runs outside'),
        ({'size': [60, 80], 'counts': [10**30]}, 'whole numbers'),
        ({'size': [60, 80], 'counts': [4799.5, 0.5]}, 'whole numbers'),
        ({'size': [60, 80], 'counts': [[4800]]}, 'whole numbers'),
        ({'size': [60, 80], 'counts': [[1], [1, 2]]}, 'whole numbers'),
        ({'size': [60, 80], 'counts': ''}, 'it is empty'),
        ({'size': [60, 80], 'counts': 'bag04P82'}, 'covers|outside'),
        ({'size': [60, 80], 'counts': 'pppp'}, 'cannot be decoded'),
        ({'size': [60, 80], 'counts': 'o' * 20}, 'cannot be decoded'),
        ({'size': [60, 80], 'counts': 'ä'}, 'cannot be decoded'),
        ({'size': [60, 80], 'counts': '1 1'}, 'cannot be decoded'),
    ],
)
@pytest.mark.bad_input(22, 23, 24, 25, 27, 28, 30)
def test_wrong_masks_name_file_and_annotation(world, segmentation, message):
    with pytest.raises(DataError, match=message) as caught:
        read(world, with_segmentation(world, segmentation))
    assert 'Annotation 1 in' in str(caught.value) and 'ann.json' in str(caught.value)


def edit(key, number, **changes):
    def change(content):
        content[key][number].update(changes)

    return change


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.pop('images'), "no list 'images'"),
        (lambda c: c.update(annotations={}), "no list 'annotations'"),
        (lambda c: c.pop('categories'), "no list 'categories'"),
        (lambda c: c['images'].append('x'), r"images\[3\] is no object with an 'id'"),
        (lambda c: c['annotations'][1].pop('id'), r'annotations\[1\]'),
        (edit('images', 1, id=1), 'ids in images must be unique, 1 are not: 1'),
        (edit('annotations', 1, id=1), 'ids in annotations must be unique'),
        (edit('annotations', 1, image_id='1'), "1 annotations.*'image_id'.*annotation 2 "),
        (edit('annotations', 1, image_id=[1]), "1 annotations.*'image_id'.*annotation 2 "),
        (edit('annotations', 1, category_id=8), "Annotation 2 in .*'category_id' 8"),
        (edit('images', 1, file_name=None), "Image 2 in .*'file_name'"),
        (edit('images', 1, width=0), "Image 2 in .*'width'"),
        (edit('images', 1, height='40'), "Image 2 in .*'height'"),
        (edit('images', 1, height=13400, width=13400), 'Image 2 in .* more than 178956970 pixels'),
    ],
)
@pytest.mark.bad_input(11, 35, 36, 37, 38)
def test_wrong_records_name_file_and_record(world, change, message):
    content = world.coco_dict()
    change(content)
    with pytest.raises(DataError, match=message) as caught:
        read(world, content)
    assert 'ann.json' in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'not valid JSON'),
        ('{"images": [', 'not valid JSON.*column'),
        ('[]', 'not a COCO file'),
        ('[' * 100000, 'not valid JSON'),
    ],
)
def test_no_coco_file(world, text, message):
    with pytest.raises(DataError, match=message):
        read(world, text)


@pytest.mark.parametrize('constant', ['NaN', 'Infinity', '-Infinity'])
@pytest.mark.parametrize(
    ('before', 'after', 'where'),
    [
        (
            '"iscrowd": 0, "bbox": [10, 5, 10',
            '"iscrowd": 0, "bbox": [{}, 5, 10',
            'annotations.* 1 ',
        ),
        ('"iscrowd": 0, "bbox": [30', '"iscrowd": 0, "area": {}, "bbox": [30', 'annotations.* 2 '),
        ('"width": 40', '"width": {}', 'images with id 2 '),
        ('{"images"', '{{"info": [{}], "images"', 'info'),
    ],
)
@pytest.mark.bad_input(40)
def test_constants_that_json_does_not_know(world, constant, before, after, where):
    text = json.dumps(world.coco_dict())
    assert before in text
    message = rf'ann\.json is not valid JSON: .*{where}.*has {constant}, expected a number'
    with pytest.raises(DataError, match=message):
        read(world, text.replace(before, after.format(constant)))


@pytest.mark.bad_input(40)
def test_the_words_of_these_constants_are_text(world):
    content = world.coco_dict()
    content['info'] = {'NaN': 'Infinity'}
    assert len(read(world, content)) == 3


@pytest.mark.bad_input(39)
def test_encodings(world):
    text = json.dumps(world.coco_dict())
    path = world.root / 'ann.json'
    path.write_text(text, 'utf-8-sig')
    assert len(read(world)[1].rles) == 2
    path.write_text(text, 'utf-16')
    with pytest.raises(DataError, match='not valid JSON'):
        read(world)
    path.unlink()
    with pytest.raises(DataError, match='Cannot read .*converter'):
        read(world)


@pytest.mark.bad_input(10)
def test_large_image_is_no_bomb(world):
    content = world.coco_dict()
    content['images'][1].update(height=9500, width=9500)
    assert read(world, content)[2].size == (9500, 9500)


def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmsam.datasets.readers.problems.print_log', lambda text, **options: lines.append(text)
    )
    return lines


@pytest.mark.bad_input(29, 31)
def test_what_has_no_pixels_is_dropped_with_one_warning(world, monkeypatch):
    lines = logged(monkeypatch)
    content = world.coco_dict()
    content['annotations'] = [
        content['annotations'][0] | {'id': number, 'segmentation': segmentation}
        for number, segmentation in enumerate(
            [
                [SQUARE],
                [[1, 1, 5, 5]],
                [[1, 1, 5, 5], SQUARE],
                [],
                [[]],
                None,
                {'size': [60, 80], 'counts': [4800]},
                [[-20, -20, -10, -20, -10, -10]],
            ]
        )
    ]
    objects = read(world, content)[1]
    assert objects.names == ['annotation 0', 'annotation 2']
    for rle in objects.rles:
        assert mask_api.toBbox(rle).tolist() == [10, 5, 10, 20]
    assert len(lines) == 1
    assert '3 polygons with fewer than 3 points' in lines[0]
    assert '6 objects without a pixel' in lines[0]


def test_nothing_dropped_nothing_said(world, monkeypatch):
    lines = logged(monkeypatch)
    read(world, world.coco_dict())
    assert lines == []


@pytest.mark.bad_input(32)
def test_polygon_that_leaves_the_image_is_cut_off(world):
    outline = [-30, -30, 20, -30, 20, 25, -30, 25]
    rle = read(world, with_segmentation(world, [outline]))[1].rles[0]
    expected = np.zeros((60, 80), np.uint8)
    expected[:25, :20] = 1
    np.testing.assert_array_equal(mask_api.decode(rle), expected)


@pytest.mark.bad_input(33)
def test_parts_of_one_object_are_united(world):
    parts = [SQUARE, [40, 5, 50, 5, 50, 25, 40, 25], [str(value) for value in SQUARE]]
    rle = read(world, with_segmentation(world, parts))[1].rles[0]
    assert mask_api.area(rle) == 2 * 200
    assert mask_api.toBbox(rle).tolist() == [10, 5, 40, 20]


@pytest.mark.bad_input(34)
def test_crowd(world):
    content = world.coco_dict('runs')
    content['annotations'][0]['iscrowd'] = 1
    objects = read(world, content)[1]
    assert objects.names == ['annotation 2']
    assert mask_api.toBbox(objects.ignored_rles).tolist() == [[10, 5, 10, 20]]
    assert objects.ignored_labels == [0]
    kept = read(world, content, keep_crowd=True)[1]
    assert kept.names == ['annotation 1', 'annotation 2']
    assert kept.ignored_rles == kept.ignored_labels == []
