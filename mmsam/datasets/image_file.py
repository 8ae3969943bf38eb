"""Opens image and mask files."""

import io
import struct
import warnings
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from mmsam.errors import DataError
from mmsam.geometry import Size

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that Pillow opens; half of that is its warning, which is not shown.

Below the 2**29 whose runs pycocotools can write and read (6 groups of 5 bits).
"""

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_BIT_DEPTH = 24  # byte offset: signature 8, chunk length and name 8, width and height 8

_SUBFILE_TYPE = 254  # a tag of TIFF
_PREVIEW_OR_MASK = 0b101  # bits of it: another page in less pixels, or its transparency


def open_image(path: str | Path) -> tuple[Image.Image, int | None]:
    """Decodes an image file, in the mode in which it is stored.

    Args:
        path: image or mask file. Its EXIF orientation is ignored, as COCO tools do.

    Returns:
        The decoded image, and the bits per sample if the file is a PNG, else None. Pillow hides
        the latter: gray of 2 or 4 bits is spread over 0..255, colours of 16 bits lose 8.

    Raises:
        DataError: the file is missing, empty, cut off, no image, several images (an animation,
            pages), or larger than ``MAX_PIXELS``, and then it is not decoded.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f'Cannot read image file {path}: {error.strerror}.') from error
    if not data:
        raise DataError(f'Image file {path} is empty (0 bytes).')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = _decoded(data, path)
    except Image.DecompressionBombError as error:
        raise DataError(
            f'Image file {path} is too large; cut it into tiles, or make it smaller: {error}'
        ) from error
    is_png = data.startswith(_PNG_SIGNATURE) and len(data) > _PNG_BIT_DEPTH
    return image, data[_PNG_BIT_DEPTH] if is_png else None


def image_size(path: str | Path) -> Size:
    """The size (H, W) of an image file from its header, its EXIF orientation ignored.

    Raises:
        DataError: the file is missing, no image, or larger than ``MAX_PIXELS``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.height, image.width
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f'Cannot read the size of image file {path}: {error}.') from error


def _decoded(data: bytes, path: str | Path) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        frames = _number_of_frames(image)
    except Image.UnidentifiedImageError as error:
        raise DataError(f'{path} is not an image: it starts with {data[:16]!r}.') from error
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error) as error:
        raise DataError(f'Cannot open image file {path}: {error}.') from error
    if frames > 1:
        raise DataError(
            f'Image file {path} has {frames} frames or pages: expected one image; save the one '
            'that its annotation is for as a file of its own.'
        )
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f'Image file {path} is damaged or cut off: {error}.') from error
    return image


def _number_of_frames(image: Image.Image) -> int:
    """Frames of an animation or pages, without those that only accompany the first."""
    frames = getattr(image, 'n_frames', 1)
    if image.format == 'MPO':  # a JPEG of a camera, with previews or a depth map behind it
        return 1
    if isinstance(image, TiffImageFile) and frames > 1:
        kinds = []
        for frame in range(frames):
            image.seek(frame)
            kinds.append(image.tag_v2.get(_SUBFILE_TYPE, 0))
        image.seek(0)
        return 1 + sum(not kind & _PREVIEW_OR_MASK for kind in kinds[1:])
    return frames
