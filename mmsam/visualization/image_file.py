"""Reads images for pictures, whose pixels must lie as those of the masks do."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsam.errors import DataError


def read_image(path: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image (H, W, 3) uint8 RGB as its pixels lie in the file: EXIF rotation is ignored.

    Args:
        path: image file.
        size: (H, W) of its masks.

    Raises:
        DataError: the image cannot be read, or is of another size.
    """
    try:
        with Image.open(path) as file:
            image = np.array(file.convert('RGB'))
    except OSError as error:
        raise DataError(f'Expected an image that can be read, got "{error}" at {path}.') from error
    if image.shape[:2] != tuple(size):
        raise DataError(
            f'Expected an image of {tuple(size)} (h, w) as its annotations say, got '
            f'{image.shape[:2]} at {path}.'
        )
    return image
