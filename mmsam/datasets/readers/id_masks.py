"""Reads images whose pixels are numbers of objects or classes."""

from pathlib import Path

import numpy as np

from mmsam.errors import DataError
from mmsam.image_file import open_image

INTEGER_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16L', 'I;16B')
"""Pillow's modes of one channel of integers."""


def read_ids(path: str | Path, max_pixels: int) -> np.ndarray:
    """The values (H, W) of a mask of any integer type; of palette images the indices.

    Raises:
        DataError: the file cannot be read, has several channels or floats, or is a JPEG.
    """
    image, bits = open_image(path, max_pixels=max_pixels)
    if image.mode not in INTEGER_MODES:
        raise DataError(f'Mask {path} has mode {image.mode}: expected one channel of integers.')
    if image.format == 'JPEG':
        raise DataError(f'Mask {path} is a JPEG, which changes values: use PNG.')
    ids = np.asarray(image)
    if image.mode == '1':
        return ids.astype(np.uint8)
    if image.mode == 'L' and bits in (2, 4):
        return ids // (255 // (2**bits - 1))
    return ids
