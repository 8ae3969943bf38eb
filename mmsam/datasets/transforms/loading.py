"""Reads the image, and turns the masks into arrays."""

import warnings
from dataclasses import replace

from mmcv.transforms import BaseTransform

from mmsam.errors import DataError
from mmsam.geometry import Size
from mmsam.image_file import MAX_PIXELS
from mmsam.registry import TRANSFORMS
from mmsam.rgb_image import ImageReading, read_rgb
from mmsam.structures.resized_masks import decode_resized


@TRANSFORMS.register_module()
class LoadSAMImage(BaseTransform):
    """Reads ``img_path`` as 8-bit RGB; sets ``img`` (H, W, 3) uint8, ``ori_shape``, ``img_shape``.

    Gray, palette, 1-bit and CMYK images are converted, alpha is dropped; of the latter two there is
    one warning. EXIF orientation is ignored, as COCO tools do, but for TIFF. Also sets
    ``image_reading``, with which ``read_rgb`` gives the same pixels again.

    Of an image with a ``tile``, only that is ``img``, and the two shapes are the tile's.

    Args:
        value_range: (low, high), the values that become 0 and 255 in images of more than 8 bits a
            sample (16-bit, float), linear in between, clipped beyond; others stay as they are.
            None refuses deep images.
        frame: which one of an animation or of pages, from 0; None refuses files that have several.

    Raises:
        ConfigError: a wrong option.
        DataError: the file cannot be read, has another size than its annotation says, or what an
            option refuses.
    """

    def __init__(
        self, value_range: tuple[float, float] | None = None, frame: int | None = None
    ) -> None:
        self.reading = ImageReading(value_range, frame)
        self._told: set[str] = set()

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        reading = self.reading_of(results)
        image = read_rgb(path, reading)
        for change in set(image.changes) - self._told:
            warnings.warn(f'Of some images {change}, first of {path}.', stacklevel=2)
            self._told.add(change)
        check_annotated_size(results, (image.pixels.shape[0], image.pixels.shape[1]))
        pixels = image.pixels
        if 'tile' in results:
            top, left, height, width = results['tile']
            pixels = pixels[top : top + height, left : left + width].copy()  # the rest is let go
        size = frame_of(results)
        results.update(img=pixels, ori_shape=size, img_shape=size, image_reading=reading)
        return results

    def reading_of(self, info: dict) -> ImageReading:
        """How the image of a sample is read."""
        return replace(self.reading, max_pixels=info.get('max_pixels', MAX_PIXELS))


def frame_of(info: dict) -> Size:
    """The size (H, W) of a sample's image, or of its ``tile``, as its annotation says."""
    if 'tile' in info:
        return info['tile'].height, info['tile'].width
    return info['height'], info['width']


def check_annotated_size(info: dict, size: Size) -> None:
    """Compares an image's ``size`` (H, W) with that of its annotation.

    Raises:
        DataError: they differ.
    """
    expected = (info['height'], info['width'])
    if size != expected:
        hint = '; it looks rotated by EXIF, which is ignored' if size == expected[::-1] else ''
        raise DataError(
            f'Image {info["img_path"]} is {size[0]}x{size[1]} (height x width), its annotation '
            f'{info["ann_path"]} is for {expected[0]}x{expected[1]}{hint}.'
        )


@TRANSFORMS.register_module()
class DecodeObjectMasks(BaseTransform):
    """Replaces ``rles`` by ``gt_masks`` (K, h, w) uint8 of 0 and 1 at the current ``img_shape``.

    Must come before whatever moves the image, since RLE do not move with it. No mask is held in
    original px. How masks get smaller: :func:`decode_resized`.
    """

    def transform(self, results: dict) -> dict:
        results['gt_masks'] = decode_resized(results.pop('rles'), results['img_shape'])
        return results
