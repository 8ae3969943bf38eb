import warnings

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmsam.datasets.transforms import DecodeObjectMasks, LoadSAMImage
from mmsam.errors import ConfigError, DataError
from mmsam.rgb_image import ImageReading


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


@pytest.mark.bad_input(6, 8)
def test_what_is_lost_is_said_once(tmp_path):
    Image.fromarray(rgb()).convert('RGBA').save(tmp_path / 'a.png')
    Image.fromarray(rgb()).convert('CMYK').save(tmp_path / 'a.tif')
    transform = LoadSAMImage()
    for name, text in (('a.png', 'alpha is dropped'), ('a.tif', 'CMYK is converted')):
        with pytest.warns(UserWarning, match=f'{text}.*{name}') as caught:
            load(tmp_path / name, transform=transform)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load(tmp_path / 'a.png', transform=transform)
        load(tmp_path / 'a.tif', transform=transform)


@pytest.mark.bad_input(4, 8, 9)
def test_options_reach_the_file(tmp_path):
    deep = [Image.fromarray(rgb()[..., c].astype(np.uint16) * 16) for c in range(3)]
    path = tmp_path / 'a.tif'
    deep[0].save(path, save_all=True, append_images=deep[1:])
    results = load(path, transform=LoadSAMImage(value_range=(0, 4080), frame=1))
    np.testing.assert_array_equal(results['img'], np.dstack([rgb()[..., 1]] * 3))
    assert results['image_reading'] == ImageReading((0, 4080), 1)
    with pytest.raises(DataError, match='a.tif has 3 frames'):
        load(path)
    with pytest.raises(ConfigError, match='value_range'):
        LoadSAMImage(value_range=(1, 1))


@pytest.mark.bad_input(11)
def test_limit_of_the_data_set(tmp_path):
    Image.fromarray(rgb()).save(tmp_path / 'a.png')
    results = {'img_path': str(tmp_path / 'a.png'), 'max_pixels': 47}
    with pytest.raises(DataError, match='max_pixels of BoxPromptDataset allows 47'):
        LoadSAMImage()(results)


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
