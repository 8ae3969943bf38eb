"""Opens image and mask files."""

import io
import struct
from pathlib import Path

from PIL import Image

from mmsam.errors import DataError

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_BIT_DEPTH = 24  # byte offset: signature 8, chunk length and name 8, width and height 8


def open_image(path: str | Path) -> tuple[Image.Image, int | None]:
    """Decodes an image file, in the mode in which it is stored.

    Args:
        path: image or mask file. Its EXIF orientation is ignored, as COCO tools do.

    Returns:
        The decoded image, and the bits per sample if the file is a PNG, else None. Pillow hides
        the latter: gray of 2 or 4 bits is spread over 0..255, colours of 16 bits lose 8.

    Raises:
        DataError: the file is missing, empty, cut off, or no image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f'Cannot read image file {path}: {error.strerror}.') from error
    if not data:
        raise DataError(f'Image file {path} is empty (0 bytes).')
    try:
        image = Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError as error:
        raise DataError(f'{path} is not an image: it starts with {data[:16]!r}.') from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f'Cannot open image file {path}: {error}.') from error
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f'Image file {path} is damaged or cut off: {error}.') from error
    is_png = data.startswith(_PNG_SIGNATURE) and len(data) > _PNG_BIT_DEPTH
    return image, data[_PNG_BIT_DEPTH] if is_png else None
