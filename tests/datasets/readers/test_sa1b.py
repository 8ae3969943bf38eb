import json

import annotated_scenes as scenes
import pytest

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.readers import SA1BReader
from mmsam.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')

REAL = {'size': [1500, 2000], 'counts': 'g[bj0:_^14N101O001O00010O000001O0O101N2M4HenTP2'}
"""Of sa_10079.json, which gives it the bbox [580, 771, 17, 17] and the area 261."""


def edited(root, change):
    options = scenes.options(root, 'sa1b')
    path = root / 'images' / 'a.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return options


def annotation(**changes):
    return lambda content: content['annotations'][1].update(changes)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (annotation(segmentation=dict(size=[60, 80], counts=[4000, 799])), 'covers 4799 pixels'),
        (annotation(segmentation=dict(size=[80, 60], counts=[4800])), r'RLE of size \[80, 60\]'),
        (annotation(segmentation=dict(size=[60, 80], counts='pp')), 'cannot be decoded'),
        (annotation(segmentation=dict(size=[60, 80], counts=[4801, -1])), 'runs outside'),
        (annotation(segmentation=[['nan', 1, 2, 3, 4, 5]]), 'not finite'),
        (annotation(segmentation='x'), 'must be polygons or an RLE'),
        (annotation(id=100), 'ids of annotations must be unique, 1 are not: 100'),
        (annotation(id=None), r"annotations\[1\] is no object with an 'id'"),
        (lambda c: c['annotations'].append(3), r'annotations\[2\] is no object'),
        (lambda c: c['image'].update(height='60'), "needs 'height' and 'width'.*'60', 80"),
        (lambda c: c['image'].update(height=10**5, width=10**5), 'more than 178956970 pixels'),
        (lambda c: c.update(image=None), "an object 'image' and a list 'annotations'"),
    ],
)
@pytest.mark.bad_input(11, 22, 23, 24, 25, 26, 27, 35)
def test_wrong_records_name_file_and_record(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as error:
        BoxPromptDataset(**edited(tmp_path, change))
    assert 'a.json' in str(error.value)


@pytest.mark.bad_input(31)
def test_what_has_no_pixels_is_left_out(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmsam.datasets.readers.problems.print_log', lambda text, **options: lines.append(text)
    )
    options = edited(tmp_path, annotation(segmentation=dict(size=[60, 80], counts=[4800])))
    assert BoxPromptDataset(**options)[0]['boxes'].tolist() == scenes.BOXES['a'][:1]
    assert any('1 objects without a pixel left out (annotation 101 of a.json' in x for x in lines)


def test_boxes_are_those_of_the_masks(tmp_path):
    def change(content):
        content['image'].update(height=1500, width=2000)
        content['annotations'] = [dict(id=588, segmentation=REAL, bbox=[580, 771, 17, 17])]

    sample = BoxPromptDataset(**edited(tmp_path, change))[0]
    assert sample['boxes'].tolist() == [[580, 771, 598, 789]]


def test_files_in_another_folder(tmp_path):
    options = scenes.options(tmp_path, 'sa1b')
    (tmp_path / 'json').mkdir()
    for name in scenes.SIZES:
        (tmp_path / 'images' / f'{name}.json').rename(tmp_path / 'json' / f'{name}.json')
    options['reader']['ann_dir'] = 'json'
    assert len(BoxPromptDataset(**options)) == 2
    (tmp_path / 'json' / 'c.json').unlink()
    with pytest.raises(DataError, match='1 of 3 images in .*images have no annotation: .*c.json'):
        BoxPromptDataset(**options)


def test_the_one_class_is_named_by_a_config(tmp_path):
    options = scenes.options(tmp_path, 'sa1b')
    images = tmp_path / 'images'
    assert SA1BReader(str(tmp_path)).read_images(images, ['thing'])[0] == ('thing',)
    with pytest.raises(ConfigError, match='SA-1B knows one class, metainfo gives 2'):
        BoxPromptDataset(**options, metainfo=dict(classes=('a', 'b')))
