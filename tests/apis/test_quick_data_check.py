"""What a training says of its data before the first iteration."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from tiny_run import refused, write_config

from mmsam.apis import check_data_quickly
from mmsam.apis.data_check import quick_check
from mmsam.datasets import BoxPromptDataset
from mmsam.errors import DataError
from tools import train


@pytest.fixture
def root(data, tmp_path):
    """A copy of the small data set, to be changed."""
    shutil.copytree(data, tmp_path / 'data')
    return tmp_path / 'data'


def build(root, split='train', **options):
    reader = dict(type='coco', ann_file=f'annotations_{split}.json')
    return BoxPromptDataset(reader, str(root), **options)


def said(train_set, val_set=None):
    lines = []
    loops = [
        data and SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
        for data in (train_set, val_set)
    ]
    logger = SimpleNamespace(info=lines.append, warning=lines.append)
    check_data_quickly(SimpleNamespace(train_loop=loops[0], val_loop=loops[1], logger=logger))
    return lines


def edit(root, change):
    path = root / 'annotations_train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_numbers_of_both_splits(root):
    train_line, val_line = said(build(root), build(root, 'val'))
    # of the six images one has no object and is left out
    assert train_line.startswith('Data of train: 5 images; 9 objects, 1 to 3, median 2 in each; ')
    assert val_line.startswith('Data of val: 3 images; 4 objects, 1 to 2, median 1 in each; ')


def test_parts_of_wrapped_data_and_other_data(root):
    parts = ConcatDataset([build(root), build(root, 'val')])
    assert [line.split(';')[0] for line in said(parts, RepeatDataset(build(root), 2))] == [
        'Data of train: 5 images',
        'Data of train: 3 images',
        'Data of val: 5 images',
    ]
    assert said(range(5)) == []


def test_tiles_are_called_so(root):
    tiling = dict(tile_size=64, overlap=0)
    train_line, val_line = said(
        build(root, tiling=tiling, empty_images='keep'),
        build(root, 'val', tiling=tiling, test_mode=True),
    )
    assert re.match(r'Data of train: \d+ tiles; \d+ objects, 0 to ', train_line)
    assert val_line.startswith('Data of val: 3 images; ')


def test_suspicions_are_warnings(root):
    edit(
        root, lambda content: content['annotations'].append({**content['annotations'][0], 'id': 99})
    )
    _, line = said(build(root))
    assert line == (
        'Data of train: 1 objects with the same mask as another: annotation 1 and annotation 99 of '
        f'{root}/images/train_1.png'
    )


def test_sizes_are_compared_without_decoding(root):
    path = root / 'images' / 'train_2.png'
    path.write_bytes(path.read_bytes()[:200])  # the header is whole
    assert len(said(build(root))) == 1
    edit(root, lambda content: content['images'][1].update(width=content['images'][1]['width'] + 1))
    content = json.loads((root / 'annotations_train.json').read_text())
    content['annotations'] = [
        {**record, 'segmentation': [[1, 1, 9, 1, 9, 9, 1, 9]], 'bbox': [1, 1, 8, 8]}
        for record in content['annotations']
    ]
    (root / 'annotations_train.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r'Image .*train_2\.png is .*annotations_train.json is for'):
        said(build(root))


def test_a_sample_of_many_images(root, monkeypatch):
    monkeypatch.setattr(quick_check, '_IMAGES', 2)
    monkeypatch.setattr(quick_check, '_HEADERS', 2)
    read = []
    header = quick_check.read_header
    monkeypatch.setattr(
        quick_check, 'read_header', lambda path, reading: read.append(path) or header(path, reading)
    )
    (line,) = said(build(root))
    assert '5 images; 3 objects (of 2 images that were looked at), 1 to 2' in line
    assert read == [f'{root}/images/train_{number}.png' for number in (1, 6)]


def test_masks_are_not_read_for_it(root, tmp_path):
    (root / 'masks').mkdir()
    for path in (root / 'images').iterdir():
        (root / 'masks' / path.name).write_bytes(b'broken')
    reader = dict(type='mask_folder', mask_dir='masks', kind='instance')
    (line,) = said(BoxPromptDataset(reader, str(root), empty_images='keep'))
    assert line.startswith('Data of train: 12 images; 0 objects (of 0 images that were looked at)')


@pytest.mark.bad_input(2)
def test_a_training_with_a_web_page_for_an_image_does_not_begin(root, tmp_path, capsys):
    (root / 'images' / 'val_2.png').write_bytes(b'<html>')
    code, line = refused(capsys, train, write_config(tmp_path, root), '--work-dir', tmp_path / 'a')
    assert code == 3 and 'val_2.png is not an image' in line
    assert not list((tmp_path / 'a').glob('*.pth'))
