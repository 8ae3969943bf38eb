"""Reads images for pictures, whose pixels must lie as those of the masks do."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsam.errors import DataError


def read_image(path: str, size: tuple[int, int], max_side: int | None = None) -> NDArray[np.uint8]:
    """The image (H, W, 3) uint8 RGB as its pixels lie in the file: EXIF rotation is ignored.

    Args:
        path: image file.
        size: (H, W) of its masks.
        max_side: larger images are shrunk to it, in px, while they are read; None keeps the size.

    Raises:
        DataError: the image cannot be read, or is of another size.
    """
    try:
        with Image.open(path) as file:
            found = file.size[::-1]
            if max_side is not None and found == tuple(size):
                file.draft('RGB', (max_side, max_side))
            picture = file.convert('RGB')
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f'Expected an image that can be read, got "{error}" at {path}.') from error
    if found != tuple(size):
        raise DataError(
            f'Expected an image of {tuple(size)} (h, w) as its annotations say, got {found} '
            f'at {path}.'
        )
    if max_side is not None:
        picture.thumbnail((max_side, max_side))
    return np.array(picture)
