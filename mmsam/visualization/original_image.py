"""Reads the image of predictions again, for pictures of them."""

import numpy as np
from numpy.typing import NDArray

from mmsam.errors import DataError
from mmsam.geometry import Size
from mmsam.rgb_image import ImageReading, read_rgb


def read_original(path: str, size: Size, reading: ImageReading) -> NDArray[np.uint8]:
    """The image (H, W, 3) uint8 RGB, read as the model got it.

    Args:
        path: image file.
        size: (H, W) of its masks.
        reading: how its data set reads files.

    Raises:
        DataError: the image cannot be read, or is of another size.
    """
    image = read_rgb(path, reading).pixels
    if image.shape[:2] != tuple(size):
        raise DataError(
            f'Expected an image of {tuple(size)} (h, w) as its annotations say, got '
            f'{image.shape[:2]} at {path}.'
        )
    return image
