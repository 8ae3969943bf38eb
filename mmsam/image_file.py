"""Opens image and mask files."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from mmsam.errors import DataError

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is opened unless a config allows more; Pillow's own limit."""

MOST_PIXELS = 2**29
"""What a config may allow at most: pycocotools writes and reads no longer runs (6 groups of 5 bits,
one of them the sign)."""

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_BIT_DEPTH = 24  # byte offset: signature 8, chunk length and name 8, width and height 8

_BITS_PER_SAMPLE, _SUBFILE_TYPE = 258, 254  # tags of TIFF
_PREVIEW_OR_MASK = 0b101  # bits of the latter: another page in less pixels, or its transparency


def open_image(
    path: str | Path, frame: int | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, int | None]:
    """Decodes an image file, in the mode in which it is stored.

    Args:
        path: image or mask file. Its EXIF orientation is ignored, as COCO tools do.
        frame: which one of an animation or of pages, from 0; None refuses files that have several.
        max_pixels: of the largest image that is decoded, at most ``MOST_PIXELS``.

    Returns:
        The decoded image, and the bits per sample of a PNG or TIFF, else None. Pillow hides
        the latter: gray of 2 or 4 bits is spread over 0..255, colours of 16 bits lose 8.

    Raises:
        DataError: the file is missing, empty, cut off, no image, several images, has no such frame,
            or is larger than ``max_pixels``, and then it is not decoded.
    """
    data = read_image_bytes(path)
    try:
        with _pixels_limited(max_pixels):
            image = _decoded(data, path, frame)
    except Image.DecompressionBombError as error:
        found = str(error).partition(' exceeds')[0]  # 'Image size (900000000 pixels)'
        raise DataError(
            f'Image file {path} is too large: {found}, max_pixels of BoxPromptDataset allows '
            f'{max_pixels}; raise it, or make the image smaller.'
        ) from error
    bits = None
    if data.startswith(_PNG_SIGNATURE) and len(data) > _PNG_BIT_DEPTH:
        bits = data[_PNG_BIT_DEPTH]
    elif isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    return image, bits


def image_size(path: str | Path) -> tuple[int, int]:
    """The size (H, W) of an image file from its header, its EXIF orientation ignored.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        with _pixels_limited(MOST_PIXELS), Image.open(path) as image:
            return image.height, image.width
    except (
        OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error,
        Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise DataError(f'Cannot read the size of image file {path}: {error}.') from error


def read_image_bytes(path: str | Path) -> bytes:
    """What an image file holds.

    Raises:
        DataError: it is missing or empty.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f'Cannot read image file {path}: {error.strerror}.') from error
    if not data:
        raise DataError(f'Image file {path} is empty (0 bytes).')
    return data


@contextmanager
def _pixels_limited(max_pixels: int) -> Iterator[None]:
    """Pillow's limit, which it checks before it decodes; half of that is a warning, not shown."""
    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = max_pixels / 2  # type: ignore[assignment]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _decoded(data: bytes, path: str | Path, frame: int | None) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        frames = getattr(image, 'n_frames', 1) if frame is not None else _number_of_frames(image)
    except Image.UnidentifiedImageError as error:
        raise DataError(
            f'{path} is not an image, or none that Pillow reads: it starts with {data[:16]!r}.'
        ) from error
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error) as error:
        raise DataError(f'Cannot open image file {path}: {error}.') from error
    if frame is None and frames > 1:
        raise DataError(
            f'Image file {path} has {frames} frames or pages: expected one image; choose one for '
            'all files with LoadSAMImage(frame=...), or save the one that its annotation is for '
            'as a file of its own.'
        )
    if frame is not None and frame >= frames:
        raise DataError(
            f'Image file {path} has {frames} frames or pages: LoadSAMImage(frame={frame}) asks '
            f'for one of 0 to {frame}.'
        )
    try:
        if frame:
            image.seek(frame)
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
