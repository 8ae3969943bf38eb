"""Reads an image as 8-bit RGB, whatever its file holds, and resizes it as SAM does."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmsam.errors import ConfigError, DataError
from mmsam.geometry import Size
from mmsam.image_file import MAX_PIXELS, open_image, read_image_bytes

_DEEP_MODES = ('I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')

_BAND_PIXELS = 2**22
"""Pixels that are converted at the same time, so that large images need no second copy."""


@dataclass(frozen=True)
class ImageReading:
    """How the files of a data set are read.

    Args:
        value_range: (low, high), the values that become 0 and 255 in images of more than 8 bits a
            sample, linear in between, clipped beyond. None refuses such images: no range that is
            taken from a single image makes images comparable.
        frame: which one of an animation or of pages, from 0; None refuses files that have several.
        max_pixels: of the largest image that is decoded.

    Raises:
        ConfigError: a range without low < high, or a negative frame.
    """

    value_range: tuple[float, float] | None = None
    frame: int | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        value_range = self.value_range
        if value_range is not None:
            numbers = np.asarray(value_range)
            if numbers.shape != (2,) or numbers.dtype.kind not in 'iuf' or not np.diff(numbers) > 0:
                raise ConfigError(
                    f'value_range must be two numbers (low, high), low < high, got {value_range}.'
                )
        if self.frame is not None and self.frame < 0:
            raise ConfigError(f'frame must be 0 or more, got {self.frame}.')


@dataclass
class RGBImage:
    """An image as read.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        changes: what was lost on the way, for a person to know: 'alpha is dropped' and the like.
    """

    pixels: np.ndarray
    changes: list[str]


def read_rgb(path: str | Path, reading: ImageReading) -> RGBImage:
    """Reads an image file as 8-bit RGB.

    Gray, palette and 1-bit images are converted; so are images in CMYK, by Pillow's plain formula
    without a colour profile. Alpha is dropped. EXIF orientation is ignored, as COCO tools do;
    that of a TIFF is followed, as Pillow does.

    Raises:
        DataError: see ``open_image``; or more than 8 bits a sample without a ``value_range``, or
            values that are NaN.
    """
    image, bits = open_image(path, reading.frame, reading.max_pixels)
    changes = []
    if 'A' in image.getbands() or 'transparency' in image.info:
        changes.append('alpha is dropped')
    if image.mode == 'CMYK':
        changes.append('CMYK is converted to RGB without its colour profile')
    if image.mode in _DEEP_MODES:
        return RGBImage(_scaled(np.asarray(image), path, reading), changes)
    if bits == 16:
        return RGBImage(_scaled(_deep_colour(path, image.mode, reading), path, reading), changes)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        if changes and image.mode != 'CMYK':
            band = band.convert('RGBA')  # Pillow warns of palettes that go to RGB at once
        pixels[top : top + rows] = np.asarray(band if band.mode == 'RGB' else band.convert('RGB'))
    return RGBImage(pixels, changes)


def resize_rgb(image: np.ndarray, size: Size) -> np.ndarray:
    """The image (H, W, 3) uint8 as (h, w, 3) uint8: bilinear with antialiasing, as Pillow does.

    Source: segment_anything/utils/transforms.py @ 6fdee8f, ``apply_image``.
    """
    resized = np.empty((*size, 3), np.uint8)
    for channel in range(3):  # at once, Pillow would copy all into four channels
        source = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        resized[..., channel] = np.asarray(source.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized


def _deep_colour(path: str | Path, mode: str, reading: ImageReading) -> np.ndarray:
    """Samples (H, W, 3) uint16 RGB, which Pillow would cut to 8 bits."""
    data = np.frombuffer(read_image_bytes(path), np.uint8)
    frame = reading.frame or 0
    _, frames = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
    if mode == 'CMYK' or not frames or frames[0].ndim != 3:
        raise DataError(
            f'Image {path} has 16 bits a sample in mode {mode}: expected gray or RGB; convert it.'
        )
    return frames[0][..., 2::-1]


def _scaled(samples: np.ndarray, path: str | Path, reading: ImageReading) -> np.ndarray:
    """Samples (H, W) or (H, W, 3) of any type to (H, W, 3) uint8."""
    if samples.dtype.kind == 'f' and (wrong := int(np.isnan(samples).sum())):
        raise DataError(f'Image {path} is {samples.dtype} and {wrong} of its pixels are NaN.')
    if reading.value_range is None:
        raise DataError(
            f'Image {path} is {samples.dtype} with values from {samples.min()} to {samples.max()}: '
            'expected 8 bits a sample; LoadSAMImage(value_range=(low, high)) says which values of '
            'your data become 0 and 255.'
        )
    low, high = reading.value_range
    pixels = np.empty((*samples.shape[:2], 3), np.uint8)
    rows = max(1, _BAND_PIXELS // samples.shape[1])
    for top in range(0, samples.shape[0], rows):
        band = (samples[top : top + rows].astype(np.float64) - low) * (255 / (high - low))
        band = np.rint(band).clip(0, 255)
        pixels[top : top + rows] = band if band.ndim == 3 else band[..., None]
    return pixels
