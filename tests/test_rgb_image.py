import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from mmsam import rgb_image
from mmsam.errors import ConfigError, DataError
from mmsam.rgb_image import ImageReading, read_rgb


def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def deep_colour():
    return np.random.default_rng(0).integers(0, 4096, (6, 8, 3), dtype=np.uint16)


def read(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        return read_rgb(path, ImageReading(**options))


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA', 'transparent palette'])
@pytest.mark.bad_input(6)
def test_alpha_is_dropped(tmp_path, mode):
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
    image = read(path)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.changes == ['alpha is dropped']


@pytest.mark.parametrize('band_pixels', [1, 17, 1000])
@pytest.mark.bad_input(7, 8)
def test_gray_palette_bit_and_cmyk(tmp_path, monkeypatch, band_pixels):
    monkeypatch.setattr(rgb_image, '_BAND_PIXELS', band_pixels)
    gray = rgb()[..., 0]
    Image.fromarray(rgb()).save(tmp_path / 'rgb.png')
    Image.fromarray(gray).save(tmp_path / 'gray.png')
    Image.fromarray(gray > 99).save(tmp_path / 'bit.png')
    Image.fromarray(rgb()).convert('CMYK').save(tmp_path / 'cmyk.tif')
    palette = Image.fromarray(rgb()).quantize(256)
    palette.save(tmp_path / 'palette.png')
    for name, expected in {
        'rgb.png': rgb(),
        'gray.png': np.dstack([gray] * 3),
        'bit.png': np.dstack([(gray > 99) * 255] * 3),
        'cmyk.tif': rgb(),
        'palette.png': np.array(palette.convert('RGB')),
    }.items():
        image = read(tmp_path / name)
        np.testing.assert_array_equal(image.pixels, expected)
        assert len(image.changes) == (name == 'cmyk.tif')


@pytest.mark.parametrize(
    ('dtype', 'name'),
    [('uint16', 'a.png'), ('uint16', 'a.tif'), ('int32', 'a.tif'), ('float32', 'a.tif')],
)
@pytest.mark.bad_input(4, 5)
def test_deep_gray_needs_a_range(tmp_path, dtype, name):
    samples = np.array([[100, 1100, 2100], [0, 99, 65535]], dtype)
    Image.fromarray(samples).save(tmp_path / name)
    with pytest.raises(DataError, match=rf'{name} is {dtype} with values from 0(.0)? to 65535.*'):
        read(tmp_path / name)
    pixels = read(tmp_path / name, value_range=(100, 2100)).pixels
    # (1100 - 100) / 2000 * 255 = 127.5, to the even number; clipped beyond the range
    expected = np.array([[0, 128, 255], [0, 0, 255]])
    np.testing.assert_array_equal(pixels, np.dstack([expected] * 3))
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
@pytest.mark.parametrize('channels', [3, 4])
@pytest.mark.bad_input(4)
def test_deep_colour_keeps_what_8_bits_would_lose(tmp_path, name, channels):
    samples = deep_colour()  # below 4096: their high byte holds 16 values only
    bgr = samples[..., ::-1]
    alpha = np.full_like(bgr[..., :1], 9)
    cv2.imwrite(str(tmp_path / name), np.dstack([bgr, alpha]) if channels == 4 else bgr)
    with pytest.raises(DataError, match=f'{name} is uint16 with values from'):
        read(tmp_path / name)
    image = read(tmp_path / name, value_range=(0, 4095))
    np.testing.assert_array_equal(image.pixels, np.rint(samples / 4095 * 255))
    assert image.changes == (['alpha is dropped'] if channels == 4 else [])


def test_deep_colour_of_another_page(tmp_path):
    pages = [deep_colour(), deep_colour() // 2]
    cv2.imwritemulti(str(tmp_path / 'a.tif'), pages)
    pixels = read(tmp_path / 'a.tif', value_range=(0, 4095), frame=1).pixels
    np.testing.assert_array_equal(pixels, np.rint(pages[1][..., ::-1] / 4095 * 255))


@pytest.mark.bad_input(5)
def test_nan_is_no_gray(tmp_path):
    Image.fromarray(np.array([[1, np.nan]], np.float32)).save(tmp_path / 'a.tif')
    with pytest.raises(DataError, match='a.tif is float32 and 1 of its pixels are NaN'):
        read(tmp_path / 'a.tif', value_range=(0, 1))


def test_8_bits_need_no_range(tmp_path):
    Image.fromarray(rgb()).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read(tmp_path / 'a.png', value_range=(0, 9)).pixels, rgb())


@pytest.mark.parametrize('value_range', [(5, 5), (9, 1), (0, 1, 2), 7, ('a', 'b'), (0, np.nan)])
def test_wrong_options(value_range):
    with pytest.raises(ConfigError, match='value_range must be two numbers'):
        ImageReading(value_range)
    with pytest.raises(ConfigError, match='frame must be 0 or more'):
        ImageReading(frame=-1)
