import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmsam.datasets.readers import MaskFolderReader
from mmsam.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'masks').mkdir()
    Image.new('RGB', (8, 6)).save(tmp_path / 'images' / 'one.jpg')
    return tmp_path


def read(root, kind, classes=None, **options):
    reader = MaskFolderReader(str(root), 'masks', kind, **options)
    _, images = reader.read_images(root / 'images', classes)
    return [reader.read_objects(image) for image in images]


def save(root, mask, name='one.png', **options):
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(root / 'masks' / name, **options)


def ids():
    """(6, 8): two blobs of value 1 that touch by a corner, one of 3."""
    mask = np.zeros((6, 8), np.uint8)
    mask[0:2, 0:2] = 1
    mask[2:4, 2:4] = 1
    mask[4:6, 6:8] = 3
    return mask


def boxes(objects):
    found = mask_api.toBbox(objects.rles)
    found[:, 2:] += found[:, :2]
    return found.tolist()


CORNERS, LATER = [0, 0, 4, 4], [6, 4, 8, 6]


def test_kinds(root):
    save(root, ids())
    instance = read(root, 'instance')[0]
    assert boxes(instance) == [CORNERS, LATER] and instance.labels == [0, 0]
    assert instance.size == (6, 8) and instance.names == ['mask value 1', 'mask value 3']
    label_map = read(root, 'label_map', classes=('ground', 'a', 'b', 'c'))[0]
    assert boxes(label_map) == [CORNERS, LATER] and label_map.labels == [1, 3]
    save(root, (ids() > 0) * np.uint8(255))
    assert boxes(read(root, 'binary')[0]) == [[0, 0, 8, 6]]
    assert boxes(read(root, 'components')[0]) == [CORNERS, LATER]  # a corner connects


@pytest.mark.bad_input(20)
def test_ignore_index(root):
    mask = ids()
    mask[0, 7] = 255
    save(root, mask)
    classes = ('road', 'a', 'b', 'c')
    assert read(root, 'label_map', classes)[0].labels == [1, 3]
    assert read(root, 'label_map', classes, ignore_index=255)[0].labels == [0, 1, 3]
    assert read(root, 'label_map', classes, ignore_index=(1, 255))[0].labels == [0, 3]
    with pytest.raises(DataError, match=r'one\.png has the values 255: expected 0 to 3'):
        read(root, 'label_map', classes, ignore_index=0)
    with pytest.raises(DataError, match=r'values 3, 255'):
        read(root, 'label_map', classes[:2], ignore_index=0)
    with pytest.raises(ConfigError, match='ignore_index'):
        read(root, 'instance', ignore_index=255)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_palette_index_is_kept(root, bits):
    mask = ids() * (1 if bits > 1 else 0) + (ids() == 1) * np.uint8(bits == 1)
    image = Image.fromarray(mask.astype(np.uint8)).convert('P')
    image.putdata(mask.ravel().tolist())
    image.putpalette([9, 9, 9, 9, 9, 9, 200, 0, 0, 9, 9, 9])  # colours do not tell the values
    save(root, image, bits=bits)
    with Image.open(root / 'masks' / 'one.png') as stored:
        assert stored.mode == 'P'
    assert read(root, 'label_map', tuple('abcd'))[0].labels == [1] + [3] * (bits > 1)


def gray_png(mask, bits):
    """A PNG of gray levels with fewer than 8 bits, which Pillow does not write."""

    def chunk(name, data):
        checksum = zlib.crc32(name + data)
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', checksum)

    shifts = np.arange(bits)[::-1]
    rows = np.packbits((mask[..., None] >> shifts & 1).reshape(len(mask), -1), axis=1)
    data = b''.join(b'\0' + row.tobytes() for row in rows)
    header = struct.pack('>IIBBBBB', mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + chunk(b'IDAT', zlib.compress(data))
        + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_gray_levels_are_not_spread(root, bits):
    mask = ids() if bits > 1 else (ids() == 1).astype(np.uint8)
    (root / 'masks' / 'one.png').write_bytes(gray_png(mask, bits))
    assert read(root, 'label_map', tuple('abcd'))[0].labels == [1] + [3] * (bits > 1)


@pytest.mark.parametrize(
    ('dtype', 'name', 'value'), [(np.uint16, 'one.png', 60000), (np.int32, 'one.tif', 100000)]
)
def test_ids_above_255(root, dtype, name, value):
    mask = ids().astype(dtype)
    mask[mask == 3] = value
    mask[5, 0] = 257  # 1 in the lower byte
    save(root, mask, name)
    objects = read(root, 'instance', mask_suffix=name[3:])[0]
    assert objects.names == [f'mask value {number}' for number in (1, 257, value)]
    assert boxes(objects) == [CORNERS, [0, 5, 1, 6], LATER]


@pytest.mark.bad_input(15, 19, 21)
@pytest.mark.trap(14)
def test_wrong_masks_are_named(root):
    def fails(message, kind='instance', **options):
        with pytest.raises(DataError, match=message) as caught:
            read(root, kind, **options)
        assert 'one.' in str(caught.value)

    fails('1 of 1 images in .* have no annotation: .*mask_suffix')
    save(root, Image.new('RGB', (8, 6)))
    fails('mode RGB')
    save(root, Image.new('F', (8, 6)), 'one.tif')
    fails('mode F', mask_suffix='.tif')
    save(root, Image.new('L', (8, 6)), 'one.jpg')
    fails('JPEG', mask_suffix='.jpg')
    (root / 'masks' / 'one.png').write_bytes(b'')
    fails('is empty')
    save(root, ids())
    for kind in ('binary', 'components'):
        fails(r"3 values \(0, 1, 3\).*'instance'", kind=kind)


@pytest.mark.parametrize('value', [0, 1, 200])
@pytest.mark.bad_input(18)
def test_uniform_binary_mask(root, value):
    save(root, np.full((6, 8), value, np.uint8))
    areas = [mask_api.area(rle) for rle in read(root, 'binary')[0].rles]
    assert areas == ([48] if value else [])


def test_classes(root):
    save(root, ids())
    reader = MaskFolderReader(str(root), 'masks', 'instance')
    assert reader.read_images(root / 'images', None)[0] == ('object',)
    assert reader.read_images(root / 'images', ['cell'])[0] == ('cell',)
    with pytest.raises(ConfigError, match='knows one class'):
        reader.read_images(root / 'images', ['a', 'b'])
    with pytest.raises(ConfigError, match='metainfo'):
        read(root, 'label_map')


def test_files_by_stem_suffix_and_split(root):
    for name in ('two.png', 'three.png'):
        Image.new('RGB', (8, 6)).save(root / 'images' / name)
    (root / 'images' / 'notes.txt').write_text('no image')
    for stem in ('one', 'two', 'three'):
        save(root, ids(), f'{stem}_seg.png')
    (root / 'some.txt').write_text('two\none.jpg\n\n')

    def names(**options):
        reader = MaskFolderReader(str(root), 'masks', 'instance', '_seg.png', **options)
        return [image.img_id for image in reader.read_images(root / 'images', None)[1]]

    assert names() == ['one', 'three', 'two']
    assert names(split='some.txt') == ['two', 'one']
    (root / 'some.txt').write_text('two\nfour')
    with pytest.raises(DataError, match=r'1 of 2 names in split .*some\.txt are no image: four'):
        names(split='some.txt')
    with pytest.raises(DataError, match=r'Cannot read split .*none\.txt'):
        names(split='none.txt')
    Image.new('RGB', (8, 6)).save(root / 'images' / 'two.jpg')
    with pytest.raises(DataError, match='differ in their stem.*: two'):
        names()


def test_no_image_folder(root):
    reader = MaskFolderReader(str(root), 'masks', 'instance')
    with pytest.raises(DataError, match='Cannot list the images in .*data_prefix'):
        reader.read_images(root / 'pictures', None)
