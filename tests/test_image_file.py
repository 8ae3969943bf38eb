import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mmsam import image_file
from mmsam.errors import DataError
from mmsam.image_file import open_image


def encoded(image_format, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def png_of_size(width, height):
    """One that says it has this size."""
    start = b'IHDR' + struct.pack('>II', width, height) + bytes([8, 2, 0, 0, 0])
    content = encoded('PNG')
    return content[:12] + start + struct.pack('>I', zlib.crc32(start)) + content[33:]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'<html><body>Not found', "not an image, .*: it starts with b'<html>"),
        (encoded('PNG')[:-900], 'damaged or cut off'),
        (encoded('JPEG')[:-300], 'damaged or cut off'),
        (encoded('PNG')[:30], 'img'),
        (encoded('PNG')[:12], 'img'),
        (encoded('TIFF')[:200], 'img'),
        (
            png_of_size(30001, 30000),
            r'too large: .* .900030000 pixels., max_pixels of BoxPromptDataset allows 178956970; ',
        ),
    ],
)
@pytest.mark.bad_input(1, 2, 11)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / 'img.dat'
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / 'none.png', tmp_path):
        with pytest.raises(DataError, match='Cannot read'):
            open_image(path)


@pytest.mark.bad_input(14)
def test_bits_of_png_and_tiff(tmp_path):
    for image_format, bits in (('PNG', 8), ('JPEG', None), ('TIFF', 8)):
        path = tmp_path / 'ä b.dat'
        path.write_bytes(encoded(image_format))
        image, found = open_image(path)
        assert found == bits and image.size == (30, 40)
    Image.new('1', (5, 4)).save(tmp_path / 'bit.tif')
    assert open_image(tmp_path / 'bit.tif')[1] == 1


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'turned.jpg'
    path.write_bytes(encoded('JPEG', exif=exif))
    assert open_image(path)[0].size == (30, 40)


@pytest.mark.bad_input(10)
def test_large_image_in_a_small_file(tmp_path):
    path = tmp_path / 'page.png'
    Image.new('1', (9500, 9500)).save(path)
    assert path.stat().st_size < 20_000
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')  # Pillow would warn of a bomb
        assert open_image(path)[0].size == (9500, 9500)
    assert not caught


@pytest.mark.bad_input(10, 11)
def test_pixels_are_limited_before_they_are_decoded(tmp_path):
    path = tmp_path / 'page.png'
    path.write_bytes(encoded('PNG')[:-300])  # would be found damaged if it were decoded
    with pytest.raises(DataError, match='page.png is too large.*1200 pixels., max_pixels .* 1199'):
        open_image(path, max_pixels=1199)
    path.write_bytes(encoded('PNG'))
    assert open_image(path, max_pixels=1200)[0].size == (30, 40)


@pytest.mark.bad_input(11)
def test_more_pixels_than_pillow_allows(tmp_path):
    path = tmp_path / 'page.png'
    path.write_bytes(png_of_size(20_000, 20_000))  # found damaged, so it was decoded
    with pytest.raises(DataError, match='page.png is damaged or cut off'):
        open_image(path, max_pixels=400_000_000)
    with pytest.raises(DataError, match='page.png is too large'):
        open_image(path)  # the limit is back


def test_limit_is_pillows():
    assert image_file.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


def test_large_image_within_a_small_one(tmp_path):
    """An icon of 40x30 whose picture is a PNG of 30000x30000."""
    inner = png_of_size(30000, 30000)
    entry = struct.pack('<BBBBHHII', 30, 40, 0, 0, 1, 32, len(inner), 22)
    path = tmp_path / 'a.ico'
    path.write_bytes(struct.pack('<HHH', 0, 1, 1) + entry + inner)
    with pytest.raises(DataError, match='a.ico is too large: .* .900000000 pixels.'):
        open_image(path)


def pages(count):
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(count)
    ]


@pytest.mark.parametrize('image_format', ['GIF', 'TIFF', 'PNG', 'WEBP'])
@pytest.mark.bad_input(9)
def test_animations_and_pages_are_refused(tmp_path, image_format):
    path = tmp_path / 'several.dat'
    first, *others = pages(3)
    first.save(path, image_format, save_all=True, append_images=others)
    with pytest.raises(DataError, match=r'several\.dat has 3 frames or pages: expected one image'):
        open_image(path)
    first.save(path, image_format, save_all=True)
    assert open_image(path)[0].size == (30, 20)


@pytest.mark.parametrize('image_format', ['GIF', 'TIFF', 'PNG', 'WEBP'])
@pytest.mark.bad_input(9)
def test_one_frame_may_be_chosen(tmp_path, image_format):
    path = tmp_path / 'several.dat'
    first, second, third = pages(3)
    first.save(path, image_format, save_all=True, append_images=[second, third], lossless=True)
    found = np.asarray(open_image(path, frame=2)[0].convert('RGB'), int)
    difference = np.abs(found - np.asarray(third, int)).mean()
    assert difference < (10 if image_format == 'GIF' else 0.1)  # its palette
    with pytest.raises(DataError, match=r'has 3 frames or pages: .*frame=3.* asks for one of 0 to'):
        open_image(path, frame=3)
    first.save(path, image_format)
    assert open_image(path, frame=0)[0].size == (30, 20)


@pytest.mark.parametrize(('kind', 'accepted'), [(0, False), (1, True), (2, False), (4, True)])
@pytest.mark.bad_input(9)
def test_previews_behind_a_page_are_no_pages(tmp_path, kind, accepted):
    """NewSubfileType of TIFF 6.0: 1 a smaller version, 2 one of several pages, 4 transparency."""
    first, second = pages(2)
    second.encoderinfo = {'tiffinfo': {254: kind}}
    path = tmp_path / 'page.tif'
    first.save(path, save_all=True, append_images=[second])
    if accepted:
        np.testing.assert_array_equal(np.asarray(open_image(path)[0]), np.asarray(first))
    else:
        with pytest.raises(DataError, match='has 2 frames'):
            open_image(path)


def test_camera_jpeg_with_a_preview_behind_it(tmp_path):
    first, second = pages(2)
    first.save(tmp_path / 'a.jpg', 'MPO', save_all=True, append_images=[second])
    first.save(tmp_path / 'b.jpg', 'JPEG')
    found, alone = (open_image(tmp_path / name)[0] for name in ('a.jpg', 'b.jpg'))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(alone))
