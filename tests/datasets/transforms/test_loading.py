import warnings

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmsam.datasets.transforms import DecodeObjectMasks, LoadSAMImage
from mmsam.errors import DataError


def load(path, height=6, width=8, transform=None):
    results = {'img_path': str(path), 'ann_path': 'ann.json', 'height': height, 'width': width}
    return (transform or LoadSAMImage())(results)


def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_rgb_in_that_order(tmp_path):
    Image.fromarray(rgb()).save(tmp_path / 'a.png')
    results = load(tmp_path / 'a.png')
    np.testing.assert_array_equal(results['img'], rgb())
    assert results['ori_shape'] == results['img_shape'] == (6, 8)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA', 'transparent palette'])
@pytest.mark.bad_input(6)
def test_alpha_is_dropped_with_one_warning(tmp_path, mode):
    gray = rgb()[..., 0]
    alpha = np.full_like(gray, 3)
    path = tmp_path / 'a.png'
    if mode == 'RGBA':
        Image.fromarray(np.dstack([rgb(), alpha])).save(path)
        expected = rgb()
    elif mode == 'LA':
        Image.fromarray(np.dstack([gray, alpha])).save(path)
        expected = np.dstack([gray] * 3)
    else:
        path = tmp_path / ('a.png' if mode != 'PA' else 'a.gif')
        image = Image.fromarray(gray // 64).convert('P')
        image.putdata((gray // 64).ravel().tolist())
        image.putpalette([0, 9, 8, 50, 60, 70, 1, 2, 3, 250, 0, 40])
        image.save(path, transparency=b'\x07\x09' if mode != 'PA' else 1)
        palette = np.array([[0, 9, 8], [50, 60, 70], [1, 2, 3], [250, 0, 40]])
        expected = palette[gray // 64]
    transform = LoadSAMImage()
    with pytest.warns(UserWarning, match=f'Alpha.*{path.name}') as caught:
        results = load(path, transform=transform)
    assert len(caught) == 1
    np.testing.assert_array_equal(results['img'], expected)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load(path, transform=transform)


@pytest.mark.bad_input(7, 8)
def test_gray_palette_bit_and_cmyk(tmp_path):
    gray = rgb()[..., 0]
    Image.fromarray(gray).save(tmp_path / 'gray.png')
    Image.fromarray(gray > 99).save(tmp_path / 'bit.png')
    Image.fromarray(rgb()).convert('CMYK').save(tmp_path / 'cmyk.tif')
    palette = Image.fromarray(rgb()).quantize(256)
    palette.save(tmp_path / 'palette.png')
    for name, expected in {
        'gray.png': np.dstack([gray] * 3),
        'bit.png': np.dstack([(gray > 99) * 255] * 3),
        'cmyk.tif': rgb(),
        'palette.png': np.array(palette.convert('RGB')),
    }.items():
        np.testing.assert_array_equal(load(tmp_path / name)['img'], expected)


@pytest.mark.parametrize(
    ('dtype', 'name'),
    [('uint16', 'a.png'), ('uint16', 'a.tif'), ('int32', 'a.tif'), ('float32', 'a.tif')],
)
@pytest.mark.bad_input(4, 5)
def test_deep_images_are_refused(tmp_path, dtype, name):
    Image.fromarray(rgb()[..., 0].astype(dtype)).save(tmp_path / name)
    with pytest.raises(DataError, match=f'{name} is {dtype}'):
        load(tmp_path / name)


def test_deep_colour_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), rgb().astype(np.uint16) * 257)
    with pytest.raises(DataError, match='a.png is uint16'):
        load(tmp_path / 'a.png')


@pytest.mark.bad_input(3, 16, 42)
def test_size_must_be_the_annotations(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(rgb()).save(path)
    with pytest.raises(DataError, match=r'a\.png is 6x8.*ann\.json is for 6x9\.'):
        load(path, 6, 9)
    with pytest.raises(DataError, match='is for 8x6; it looks rotated by EXIF'):
        load(path, 8, 6)


@pytest.mark.bad_input(12)
def test_one_pixel_in_place_of_an_image(tmp_path):
    """What some servers send for a picture that is gone."""
    Image.new('RGB', (1, 1)).save(tmp_path / 'a.png')
    with pytest.raises(DataError, match=r'a\.png is 1x1.*ann\.json is for 6x8\.'):
        load(tmp_path / 'a.png')
    assert load(tmp_path / 'a.png', 1, 1)['img'].tolist() == [[[0, 0, 0]]]


def test_masks_are_decoded_at_the_image_size():
    masks = np.zeros((12, 16, 2), np.uint8, order='F')
    masks[2:6, 4:12, 0] = 1
    masks[10:12, 0:2, 1] = 1
    results = {'rles': mask_api.encode(masks), 'img_shape': (6, 8)}
    results = DecodeObjectMasks()(results)
    assert 'rles' not in results
    expected = np.zeros((2, 6, 8), np.uint8)
    expected[0, 1:3, 2:6] = 1
    expected[1, 5, 0] = 1
    np.testing.assert_array_equal(results['gt_masks'], expected)
    assert results['gt_masks'].dtype == np.uint8


def test_no_object_gives_no_mask():
    results = DecodeObjectMasks()({'rles': [], 'img_shape': (6, 8)})
    assert results['gt_masks'].shape == (0, 6, 8)
