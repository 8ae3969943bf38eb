"""Pictures as part of an HTML page."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from mmsam.structures.resized_masks import decode_resized
from mmsam.structures.rle import RLE, encode_masks
from mmsam.visualization.image_file import read_image
from mmsam.visualization.prediction_picture import draw_masks

MAX_SIDE = 400
"""Of a picture, in px."""
MAX_BYTES = 70_000
"""Of a picture's JPEG, as far as a lower quality helps."""
_QUALITIES = (85, 70, 50, 30)


def masks_as_data(path: str, size: tuple[int, int], masks: Sequence[Sequence[RLE]]) -> list[str]:
    """One picture per list of masks drawn over the same image, as ``data:`` addresses.

    A large image is shrunk while it is read, its masks while they are decoded.

    Args:
        path: image file.
        size: (H, W) of image and masks, original px.
        masks: lists of K masks.

    Raises:
        DataError: the image cannot be read, or is of another size.
    """
    image = read_image(path, size, MAX_SIDE)
    shown = image.shape[:2]
    pictures = []
    for rles in masks:
        if shown != tuple(size):
            rles = [encode_masks(decode_resized([rle], shown))[0] for rle in rles]
        pictures.append(_jpeg_as_data(Image.fromarray(draw_masks(image, rles, MAX_SIDE))))
    return pictures


def _jpeg_as_data(picture: Image.Image) -> str:
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, 'JPEG', quality=quality, optimize=True)
        if file.tell() <= MAX_BYTES:
            break
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode("ascii")}'
