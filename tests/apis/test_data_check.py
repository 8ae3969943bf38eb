"""What tools/check_data.py says of each bad input, over a folder of three small images."""

import gc
import itertools
import json
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api
from tiny_run import run_here

from mmsam.apis import start_check
from mmsam.apis.data_check.neighbours import find_overlaps, find_touching
from mmsam.apis.data_check.object_checks import check_objects
from mmsam.datasets.readers.rle import boxes_of_rles
from mmsam.datasets.tiling import Tiling
from mmsam.structures.rle import encode_masks
from tools import check_data

HEIGHT, WIDTH = 24, 32
READER = dict(type='coco', ann_file='annotations_train.json')
BOXES = {1: (12, 13, 18, 20), 2: (20, 5, 30, 10), 3: (14, 12, 20, 20)}
"""Of the objects xyxy; 1 and 2 are in image a, 3 is in b."""


def picture(seed=0, size=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def polygon(x1, y1, x2, y2):
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def loader(root, reader, classes=None):
    pipeline = [dict(type='LoadSAMImage'), dict(type='ResizeLongestSide', image_size=64)]
    metainfo = dict(classes=classes)
    dataset = dict(
        type='BoxPromptDataset',
        data_root=str(root),
        reader=reader,
        metainfo=metainfo,
        pipeline=pipeline,
    )
    return dict(batch_size=1, sampler=dict(type='SeededInfiniteSampler'), dataset=dataset)


class Folder:
    """A data root whose annotations a test may change before they are written."""

    def __init__(self, root):
        self.root = root
        (root / 'images').mkdir()
        for seed, name in enumerate('abc'):
            Image.fromarray(picture(seed)).save(root / 'images' / f'{name}.png')
        self.content = {
            'images': [
                {'id': number, 'file_name': f'{name}.png', 'height': HEIGHT, 'width': WIDTH}
                for number, name in enumerate('ab', 1)
            ],
            'annotations': [
                {
                    'id': number,
                    'image_id': 1 if number < 3 else 2,
                    'category_id': 7,
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'segmentation': [polygon(x1, y1, x2, y2)],
                }
                for number, (x1, y1, x2, y2) in BOXES.items()
            ],
            'categories': [{'id': 7, 'name': 'cell'}],
        }
        self.reader = READER
        self.more = ''
        self.classes = None
        self.text = None

    @property
    def first(self):
        """Annotation 1."""
        return self.content['annotations'][0]

    def segment(self, segmentation):
        self.first['segmentation'] = segmentation

    def image(self, image, name='a.png', **options):
        """Another file of image a, of any type."""
        image.save(self.root / 'images' / name, **options)
        self.content['images'][0].update(file_name=name, height=image.height, width=image.width)

    def bytes_of_image(self, content):
        (self.root / 'images' / 'a.png').write_bytes(content)

    def masks(self, mask, kind, name='a.png', classes=None):
        """A mask folder instead of COCO; ``mask`` is that of image a, b has one object."""
        suffix = name[1:]
        (self.root / 'masks').mkdir()
        (self.root / 'images' / 'c.png').unlink()
        other = Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8))
        other.save(self.root / 'masks' / f'b{suffix}')
        mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        mask.save(self.root / 'masks' / name)
        self.reader = dict(type='mask_folder', mask_dir='masks', kind=kind, mask_suffix=suffix)
        self.classes = classes

    def check(self, *arguments):
        """Run the tool on the training data."""
        text = json.dumps(self.content) if self.text is None else self.text
        data = text if isinstance(text, bytes) else text.encode()
        (self.root / 'annotations_train.json').write_bytes(data)
        config = self.root / 'config.py'
        train = loader(self.root, self.reader, self.classes)
        config.write_text(f"default_scope = 'mmsam'\ntrain_dataloader = {train}\n{self.more}")
        run_here(check_data, config, *arguments)


@pytest.fixture(scope='module', autouse=True)
def _old_objects_are_not_searched():
    """mmengine collects garbage for each data set, which else goes through all that is imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def exit_code_of(folder, *arguments):
    try:
        folder.check(*arguments)
    except SystemExit as end:
        return end.code
    return 0


# ------------------------------------------------------------------------------------------ images


def jpeg_that_ends_early(folder):
    folder.image(Image.fromarray(picture()), 'a.jpg')
    path = folder.root / 'images' / 'a.jpg'
    path.write_bytes(path.read_bytes()[:-300])


ROTATED = Image.Exif()
ROTATED[0x0112] = 6


def rotated_jpeg(folder):
    folder.image(Image.fromarray(picture()), 'a.jpg', exif=ROTATED)
    folder.content['images'][0].update(height=WIDTH, width=HEIGHT)


def bomb(folder):
    start = b'IHDR' + struct.pack('>IIBBBBB', 30001, 30000, 8, 2, 0, 0, 0)
    content = (folder.root / 'images' / 'a.png').read_bytes()
    folder.bytes_of_image(
        content[:12] + start + struct.pack('>I', zlib.crc32(start)) + content[33:]
    )


def animation(folder):
    frames = [Image.fromarray(picture(seed)) for seed in range(2)]
    folder.image(frames[0], 'a.gif', save_all=True, append_images=frames[1:])


def one_pixel(folder):
    folder.image(Image.new('RGB', (1, 1)))
    folder.segment([[0, 0, 1, 0, 1, 1, 0, 1]])
    folder.first['bbox'] = [0, 0, 1, 1]
    del folder.content['annotations'][1]


def without_image(folder):
    (folder.root / 'images' / 'a.png').unlink()


def ids(*values):
    """A mask that has these values, one row each, and 0."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, value in enumerate(values):
        mask[row] = value
    return mask


def cases(table):
    return [
        pytest.param(*case, id=f'{row}-{number}')
        for row, those in table.items()
        for number, case in enumerate(those)
    ]


BAD_FILES = {
    1: [(jpeg_that_ends_early, 'images/a.jpg is damaged or cut off')],
    2: [
        (lambda f: f.bytes_of_image(b''), 'images/a.png is empty'),
        (lambda f: f.bytes_of_image(b'<html>'), "a.png is not an image.*b'<html>'"),
    ],
    3: [(rotated_jpeg, 'a.jpg is 24x32 .*annotations_train.json is for 32x24; .*EXIF')],
    4: [(lambda f: f.image(Image.fromarray(picture()[..., 0] * np.uint16(9))), 'a.png is uint16')],
    5: [
        (
            lambda f: f.image(Image.fromarray(picture()[..., 0] / np.float32(9)), 'a.tif'),
            'a.tif is float32',
        )
    ],
    9: [(animation, 'a.gif has 2 frames or pages')],
    11: [(bomb, 'a.png is too large.*900030000 pixels')],
    13: [(without_image, '1 of 2 image files are missing: .*a.png')],
    15: [(lambda f: f.masks(picture(), 'instance'), 'Mask .*masks/a.png has mode RGB')],
    16: [(lambda f: f.masks(ids(1)[:9], 'instance'), 'a.png is 24x32 .*masks/a.png is for 9x32')],
    19: [
        (lambda f: f.masks(ids(1, 2, 3), 'binary'), r'Mask .*a.png has 4 values \(0, 1, 2, 3\)'),
        (lambda f: f.masks(ids(1), 'binary', 'a.jpg'), 'Mask .*a.jpg is a JPEG'),
    ],
    20: [
        (
            lambda f: f.masks(ids(1, 5), 'label_map', classes=('a', 'b')),
            'Mask .*a.png has the values 5: expected 0 to 1 for 2 classes',
        )
    ],
    21: [
        (
            lambda f: f.masks(ids(1) / np.float32(2), 'instance', 'a.tif'),
            'Mask .*masks/a.tif has mode F',
        )
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ('prepare', 'words'),
    cases(BAD_FILES),
)
@pytest.mark.bad_input(1, 2, 3, 4, 5, 9, 11, 13, 15, 16, 19, 20, 21)
def test_bad_files_are_errors(folder, capsys, prepare, words):
    prepare(folder)
    assert exit_code_of(folder) == 3
    assert_error(capsys, words)


def assert_error(capsys, words):
    """The sentence stands in the report, and ends the tool."""
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith('DataError: ')
    for text in (last, captured.out):
        assert re.search(words, text), text


RGB = Image.fromarray(picture())
SUSPICIOUS_FILES = {
    3: [
        (
            lambda f: f.image(RGB, 'a.jpg', exif=ROTATED),
            r'1 images whose EXIF orientation is ignored: .*a\.jpg',
        )
    ],
    6: [(lambda f: f.image(RGB.convert('RGBA')), '(?i)alpha .*is dropped.*a.png')],
    7: [
        (lambda f, mode=mode: f.image(RGB.convert(mode)), f'1 PNG {mode} ')
        for mode in ('L', 'P', '1')
    ],
    8: [(lambda f: f.image(RGB.convert('CMYK'), 'a.jpg'), '1 JPEG CMYK ')],
    10: [(lambda f: f.image(Image.new('1', (3000, 2000))), r'1 images of one colour: .*a\.png')],
    12: [(one_pixel, r'1 images with a side below 16 px: .*a\.png \(1x1\)')],
    14: [(lambda f: f.image(RGB, 'ä b.png'), r'\| images +\| +2 ')],
    17: [(lambda f: f.masks(ids(), 'instance'), r'1 images without an object .*: .*a\.png\n')],
    18: [
        (lambda f: f.masks(ids(255), 'binary'), r'\| objects +\| +2 '),
    ],
    19: [
        (
            lambda f: f.masks((picture()[..., 0] // 16).astype(np.uint8), 'instance'),
            r'images whose objects look like the gray levels .*a\.png \(15 values\)',
        )
    ],
}  # fmt: skip


@pytest.mark.parametrize(('prepare', 'words'), cases(SUSPICIOUS_FILES))
@pytest.mark.bad_input(3, 6, 7, 8, 10, 12, 14, 17, 18, 19)
def test_suspicious_files_are_no_errors(folder, capsys, prepare, words):
    prepare(folder)
    assert exit_code_of(folder) == 0
    assert re.search(words, capsys.readouterr().out)


# ------------------------------------------------------------------------------------- annotations

SIZE = [HEIGHT, WIDTH]
PIXELS = HEIGHT * WIDTH
SQUARE = polygon(2, 3, 12, 13)


def mask_of(counts, size=SIZE):
    return lambda f: f.segment({'size': size, 'counts': counts})


def outline(*polygons):
    return lambda f: f.segment(list(polygons))


def edit(key, number, **changes):
    return lambda f: f.content[key][number].update(changes)


def every_box(form):
    def change(folder):
        for record in folder.content['annotations']:
            record['bbox'] = form(*BOXES[record['id']])

    return change


def text(make):
    def change(folder):
        folder.text = make(json.dumps(folder.content))

    return change


BAD_RECORDS = {
    22: [(mask_of([PIXELS], [32, 24]), r'Annotation 1 in .*json has an RLE of size \[32, 24\]')],
    23: [(mask_of([PIXELS - 9, 8]), 'Annotation 1 in .* covers 767 pixels')],
    24: [(mask_of([PIXELS - 9, 10]), 'Annotation 1 in .* covers 769 pixels')],
    25: [(mask_of([PIXELS + 1, -1]), 'Annotation 1 in .* has runs outside 0..768')],
    26: [(mask_of('bag04P82'), "Annotation 1 in .*'counts'")],
    27: [(outline(['nan', *SQUARE[1:]]), 'Annotation 1 in .* is not finite')],
    28: [(outline([1e9, *SQUARE[1:]]), r'Annotation 1 in .*\(1000000000.0, 3.0\) far outside')],
    30: [(outline(SQUARE[:-1]), 'Annotation 1 in .* of 7 numbers')],
    35: [(edit('annotations', 1, id=1), 'ids in annotations must be unique, 1 are not: 1')],
    36: [(edit('images', 1, id=1), 'ids in images must be unique, 1 are not: 1')],
    37: [(edit('annotations', 0, image_id='1'), "1 annotations have an 'image_id'.*annotation 1 ")],
    38: [(lambda f: f.content.pop('images'), "train.json is not .*: it has no list 'images'")],
    39: [
        (text(lambda content: content.encode('utf-16')), 'train.json is not valid JSON'),
        (text(lambda content: content[:-9]), 'train.json is not valid JSON.*column'),
    ],
    40: [(edit('annotations', 0, area=float('nan')), 'train.json is not valid JSON.* 1 .*has NaN')],
    42: [(edit('images', 0, width=40), 'a.png is 24x32 .*annotations_train.json is for 24x40')],
    43: [(edit('annotations', 0, bbox=[2, 3, 0, 10]), 'the box of annotation 1 of image .*a.png')],
    44: [
        (edit('annotations', 0, bbox=['nan', 3, 9, 10]), 'the box of annotation 1 of .*a.png.*nan'),
        (edit('annotations', 0, bbox=[None] * 4), 'annotation 1 of image .*a.png has no box'),
    ],
    45: [(edit('annotations', 0, bbox=[40, 3, 9, 10]), 'the box of annotation 1 of .*a.png')],
    46: [
        (
            every_box(lambda *corners: corners),
            r'boxes in .*train.json look like \(x1, y1, x2, y2\) in pixels: 100% of 3 ',
        )
    ],
    47: [
        (
            every_box(lambda a, b, c, d: [a / WIDTH, b / HEIGHT, c / WIDTH, d / HEIGHT]),
            r'boxes in .*train.json look like \(x1, y1, x2, y2\) in shares of the image',
        )
    ],
}  # fmt: skip


@pytest.mark.parametrize(('prepare', 'words'), cases(BAD_RECORDS))
@pytest.mark.bad_input(
    22, 23, 24, 25, 26, 27, 28, 30, 35, 36, 37, 38, 39, 40, 42, 43, 44, 45, 46, 47
)
def test_bad_records_are_errors(folder, capsys, prepare, words):
    prepare(folder)
    assert exit_code_of(folder) == 3
    assert_error(capsys, words)


def many_objects(folder):
    for number in range(10, 27):
        folder.content['annotations'].append({**folder.first, 'id': number})


SUSPICIOUS_RECORDS = {
    29: [(outline([1, 1, 5, 5], SQUARE), '1 polygons with fewer than 3 points .*: annotation 1 ')],
    31: [(outline(), '1 objects without a pixel .*: annotation 1 in .*train.json')],
    32: [(outline(polygon(-9, -9, 12, 13)), r'\| objects +\| +3 ')],
    33: [(outline([str(number) for number in SQUARE]), r'\| objects +\| +3 ')],
    34: [(edit('annotations', 0, iscrowd=1), '1 .*crowd.* left out of the .*: annotation 1 in')],
    39: [(text(lambda content: content.encode('utf-8-sig')), r'\| objects +\| +3 ')],
    45: [
        (
            edit('annotations', 0, bbox=[-3, 3, 15, 10]),
            '1 boxes that leave their images cut off: annotation 1 of .*a.png',
        )
    ],
    46: [
        (
            edit('annotations', 0, bbox=[12, 13, 2, 2]),
            r'1 boxes that do not fit their masks: annotation 1 of .*a.png \(IoU 0.10\)',
        )
    ],
    48: [(many_objects, r'objects an image +\| +1 to 19, ')],
}  # fmt: skip


@pytest.mark.parametrize(('prepare', 'words'), cases(SUSPICIOUS_RECORDS))
@pytest.mark.bad_input(29, 31, 32, 33, 34, 39, 45, 46, 48)
def test_suspicious_records_are_no_errors(folder, capsys, prepare, words):
    prepare(folder)
    assert exit_code_of(folder) == 0
    assert re.search(words, capsys.readouterr().out)


@pytest.mark.bad_input(41)
def test_a_file_larger_than_the_memory(folder, capsys, monkeypatch):
    monkeypatch.setattr(start_check, 'available_memory', lambda: 1000)
    assert exit_code_of(folder) == 5
    assert 'annotations_train.json has 0.0 MB' in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ splits


@pytest.mark.bad_input(17, 18, 49)
def test_splits_without_an_object(folder, capsys):
    folder.content['annotations'] = []
    assert exit_code_of(folder) == 2
    assert "ann_file='annotations_train.json', got 0: none of the 2" in capsys.readouterr().err
    folder.masks(ids(255), 'label_map', classes=('paper', 'ink'))
    Image.fromarray(ids(255)).save(folder.root / 'masks' / 'b.png')
    assert exit_code_of(folder) == 2
    assert "kind='label_map', mask_suffix='.png', got 0: none" in capsys.readouterr().err


@pytest.mark.bad_input(49)
def test_images_of_two_splits(folder, capsys):
    """The same content under another name; a loader that has the same data is not read again."""
    shutil.copytree(folder.root / 'images', folder.root / 'others' / 'images')
    other = folder.root / 'others'
    (other / 'images' / 'a.png').rename(other / 'images' / 'z.png')
    content = {**folder.content, 'images': [{**folder.content['images'][0], 'file_name': 'z.png'}]}
    content['annotations'] = folder.content['annotations'][:2]
    (other / 'annotations_train.json').write_text(json.dumps(content))
    folder.more = (
        f'val_dataloader = {loader(other, READER)}\ntest_dataloader = val_dataloader\n'
        "val_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=False)\n"
        "val_cfg, val_evaluator = dict(type='ValLoop'), dict(type='PromptedMaskMetric')\n"
        "test_cfg, test_evaluator = dict(type='TestLoop'), val_evaluator\n"
    )
    assert exit_code_of(folder) == 0
    out = capsys.readouterr().out
    assert re.search(
        r'val, test: WARNING  1 images that are in train, too: .*z\.png and .*a\.png', out
    )
    assert exit_code_of(folder, '--phase', 'test') == 0
    assert 'images that are in' not in capsys.readouterr().out
    assert exit_code_of(folder, '--phase', 'train') == 0


def test_a_phase_that_the_config_does_not_have(folder, capsys):
    assert exit_code_of(folder, '--phase', 'train', 'val') == 2
    assert 'config.py has no val_dataloader.' in capsys.readouterr().err


# ------------------------------------------------------------------------------------- all of them


def test_all_errors_are_told(folder, capsys):
    first, second, third = folder.content['annotations']
    first['segmentation'] = {'size': SIZE, 'counts': [1]}
    second['bbox'] = [90, 90, 1, 1]
    folder.content['annotations'] += [
        {**third, 'id': number, 'segmentation': 'x'} for number in range(10, 17)
    ]
    (folder.root / 'images' / 'b.png').write_bytes(b'')
    assert exit_code_of(folder) == 3
    captured = capsys.readouterr()
    errors = [line for line in captured.out.splitlines() if 'ERROR' in line]
    found = [re.search(r'(nnotation \d+|b\.png is empty|\.\.\. and .*)', e)[0] for e in errors]
    assert found == [
        'nnotation 1',
        *(f'nnotation {number}' for number in range(10, 15)),
        '... and 2 more of this kind.',
        'nnotation 2',
        'b.png is empty',
    ]
    assert captured.err.splitlines()[-1].startswith(
        'DataError: 10 errors in the data, the first: Annotation 1 in '
    )


def test_numbers(folder, capsys):
    """By hand: areas 42, 50 and 48."""
    folder.content['annotations'].append({**folder.first, 'id': 4})
    folder.content['categories'].append({'id': 9, 'name': 'rest'})
    exit_code_of(folder)
    out = capsys.readouterr().out
    for label, value in (
        ('images', '2'),
        ('sizes (height x width)', '2 of 24x32'),
        ('objects', '4'),
        ('objects an image', '1 to 3, median 2'),
        ('area of an object, px', '42 to 50, median 45'),
        ('touching another', '2 in 1 images'),
        ('class cell (id 7)', '4'),
        ('class rest (id 9)', '0'),
        ('32 to 63', '4'),
    ):
        assert re.search(rf'\| +{re.escape(label)} +\| +{re.escape(value)} +\|', out), label
    assert re.search('1 objects with the same mask as another: annotation 1 and annotation 4 ', out)
    assert re.search(r'1 pairs of objects that share pixels: .* 1 and .* 4 of .*\(42 px\)', out)
    assert re.search('1 classes without an object: rest', out)


def test_small_objects_are_those_of_a_tile(folder):
    mask = np.zeros((1, 40, 80), np.uint8)
    mask[0, 3:7, 3:7] = 1
    rles = encode_masks(mask)
    info = dict(rles=rles, height=40, width=80, gt_boxes=boxes_of_rles(rles))
    small = [('objects smaller than 4x4 px in an input of 20 px', (0,), '1.0 px')]
    assert list(check_objects(info, 20, None)) == small
    assert list(check_objects(info, 20, Tiling(20, 0))) == []


def test_a_wrong_tiling(folder, capsys):
    folder.more = "train_dataloader['dataset'].update(tiling=dict(tile_size=8, overlap=9))"
    assert exit_code_of(folder) == 2
    assert 'tiling expects whole numbers' in capsys.readouterr().err
    folder.more = folder.more.replace('overlap=9)', 'overlap=0), indices=[2]')  # the third tile
    assert exit_code_of(folder) == 0


def test_pictures_mark_the_objects(folder):
    folder.segment([polygon(12, 13, 13, 14)])
    folder.first['bbox'] = [12, 13, 1, 1]
    assert exit_code_of(folder, '--show-dir', str(folder.root / 'pictures')) == 0
    names = {path.name for path in (folder.root / 'pictures' / 'train').iterdir()}
    assert names == {'sample_0.png', 'sample_1.png', 'objects_of_1_px_0.png'}


# -------------------------------------------------------------------------------------- neighbours


def test_neighbours_are_those_of_the_pixels():
    """Against pairs of masks moved over each other by a pixel."""
    rng = np.random.default_rng(0)
    exact = 0
    for size in ((7, 9), (1, 12), (12, 1)):
        for _ in range(30):
            masks = rng.random((4, *size)) < 0.15
            masks[3, :, :2] = True  # a run over two columns
            rles = [mask_api.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
            shared, touching = {}, set()
            for i, j in itertools.combinations(range(4), 2):
                if count := int((masks[i] & masks[j]).sum()):
                    shared[i, j] = count
                grown = masks[i].copy()
                grown[1:] |= masks[i][:-1]
                grown[:-1] |= masks[i][1:]
                grown[:, 1:] |= masks[i][:, :-1]
                grown[:, :-1] |= masks[i][:, 1:]
                if (grown & masks[j]).any():
                    touching |= {i, j}
            overlaps = find_overlaps(rles)
            if masks.sum(axis=0).max() <= 2:
                assert overlaps == shared
                exact += 1
            assert {i for pair in overlaps for i in pair} == {i for pair in shared for i in pair}
            assert all(0 < count <= shared[pair] for pair, count in overlaps.items())
            assert find_touching(rles) == touching
    assert 20 < exact < 80
    assert find_overlaps([]) == {} and find_touching([]) == set()


def test_masks_in_a_pile_are_all_named():
    """Each with its neighbour in the pile, and not the 45 pairs of ten."""
    masks = np.zeros((10, 6, 8), np.uint8)
    masks[:, 1:4, 2:5] = 1
    rles = encode_masks(masks)
    assert find_overlaps(rles) == {(number, number + 1): 9 for number in range(9)}
    assert find_touching(rles) == set(range(10))
