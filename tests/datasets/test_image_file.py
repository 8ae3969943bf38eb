import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmsam.datasets.image_file import open_image
from mmsam.errors import DataError


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
        (b'<html><body>Not found', "not an image: it starts with b'<html>"),
        (encoded('PNG')[:-900], 'damaged or cut off'),
        (encoded('JPEG')[:-300], 'damaged or cut off'),
        (encoded('PNG')[:30], 'img'),
        (encoded('PNG')[:12], 'img'),
        (encoded('TIFF')[:200], 'img'),
        (png_of_size(30000, 30000), r'900000000 pixels\) exceeds limit'),
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
def test_bits_of_png_only(tmp_path):
    for image_format, bits in (('PNG', 8), ('JPEG', None)):
        path = tmp_path / 'ä b.dat'
        path.write_bytes(encoded(image_format))
        image, found = open_image(path)
        assert found == bits and image.size == (30, 40)


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'turned.jpg'
    path.write_bytes(encoded('JPEG', exif=exif))
    assert open_image(path)[0].size == (30, 40)
