"""Pictures as part of an HTML page."""

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsam.geometry import Size
from mmsam.structures.resized_masks import decode_resized
from mmsam.structures.rle import RLE, encode_masks
from mmsam.visualization.original_image import read_original
from mmsam.visualization.prediction_files import ImagePredictions
from mmsam.visualization.prediction_picture import draw_masks

MAX_SIDE = 400
"""Of a picture, in px."""
MAX_BYTES = 70_000
"""Of a picture's JPEG, as far as a lower quality helps."""
_QUALITIES = (85, 70, 50, 30)


def masks_as_data(image: ImagePredictions, masks: Sequence[Sequence[RLE]]) -> list[str]:
    """One picture per list of masks drawn over the image, as ``data:`` addresses.

    Of a large image, image and masks are shrunk before they are drawn.

    Args:
        image: whose file is read again.
        masks: lists of K masks.

    Raises:
        DataError: the file cannot be read, or is of another size.
    """
    pixels = read_original(image.path, image.size, image.reading)
    scale = MAX_SIDE / max(image.size)
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.size)
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
        masks = [[_resized(rle, (height, width)) for rle in rles] for rles in masks]
    return [_jpeg_as_data(draw_masks(pixels, rles, MAX_SIDE)) for rles in masks]


def _resized(rle: RLE, size: Size) -> RLE:
    return encode_masks(decode_resized([rle], size))[0]


def _jpeg_as_data(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, 'JPEG', quality=quality)
        if file.tell() <= MAX_BYTES:
            break
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode("ascii")}'
