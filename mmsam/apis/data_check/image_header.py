"""What an image file says of itself, read without decoding it."""

import warnings
from dataclasses import dataclass, replace

from PIL import ExifTags, Image

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.transforms import LoadSAMImage
from mmsam.geometry import Size
from mmsam.image_file import open_image
from mmsam.rgb_image import ImageReading


@dataclass(frozen=True)
class ImageHeader:
    """Of one file.

    Args:
        size: (H, W) of the pixels as they lie in the file; of the first frame.
        kind: format, mode and, where the mode does not tell them, bits: 'PNG RGBA'.
        is_rotated: whether EXIF says that the pixels are to be shown in another orientation.
    """

    size: Size
    kind: str
    is_rotated: bool


def reading_of(dataset: BoxPromptDataset) -> ImageReading:
    """How the pipeline of a data set reads its images."""
    steps = dataset.pipeline.transforms
    loading = next((step for step in steps if isinstance(step, LoadSAMImage)), LoadSAMImage())
    return replace(loading.reading, max_pixels=dataset.max_pixels)


def read_header(path: str, reading: ImageReading) -> ImageHeader:
    """Read the header of an image file.

    Args:
        path: the file.
        reading: how its data set reads it.

    Raises:
        DataError: the file cannot be opened; see ``open_image``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _header(image)
    except Exception:  # noqa: BLE001  (of Pillow's plugins; open_image says what is wrong)
        return _header(open_image(path, reading.frame, reading.max_pixels)[0])


def _header(image: Image.Image) -> ImageHeader:
    is_deep = ';16' in str(getattr(image, 'tile', '')) and ';16' not in image.mode
    # that of PNG files decodes them
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return ImageHeader(
        size=(image.height, image.width),
        kind=f'{image.format} {image.mode}{" of 16 bits" if is_deep else ""}',
        # Pillow turns a TIFF itself
        is_rotated=orientation != 1 and image.format != 'TIFF',
    )
