"""Reads the image, and turns the masks into arrays."""

import warnings

import numpy as np
from mmcv.transforms import BaseTransform

from mmsam.datasets.image_file import open_image
from mmsam.errors import DataError
from mmsam.registry import TRANSFORMS
from mmsam.structures.resized_masks import decode_resized

_DEEP_MODES = ('I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')


@TRANSFORMS.register_module()
class LoadSAMImage(BaseTransform):
    """Reads ``img_path`` as 8-bit RGB; sets ``img`` (H, W, 3) uint8, ``ori_shape``, ``img_shape``.

    Gray, palette, 1-bit and CMYK images are converted, alpha is dropped with one warning. EXIF
    orientation is ignored, as COCO tools do.

    Raises:
        DataError: the file cannot be read, holds several images, has more than 8 bits a sample, or
            another size than its annotation says.
    """

    def __init__(self) -> None:
        self._warned_of_alpha = False

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        image, png_bits = open_image(path)
        if image.mode in _DEEP_MODES or png_bits == 16:
            dtype = 'uint16' if png_bits == 16 else np.asarray(image).dtype
            raise DataError(
                f'Image {path} is {dtype} (mode {image.mode}): expected 8 bits a sample; '
                'convert it with the value range of your data.'
            )
        if 'A' in image.getbands() or 'transparency' in image.info:
            if not self._warned_of_alpha:
                warnings.warn(f'Alpha of images is dropped, first of {path}.', stacklevel=2)
                self._warned_of_alpha = True
            image = image.convert('RGBA')  # Pillow warns of palettes that go to RGB at once
        array = np.array(image.convert('RGB'))
        size = (array.shape[0], array.shape[1])
        expected = (results['height'], results['width'])
        if size != expected:
            hint = '; it looks rotated by EXIF, which is ignored' if size == expected[::-1] else ''
            raise DataError(
                f'Image {path} is {size[0]}x{size[1]} (height x width), its annotation '
                f'{results["ann_path"]} is for {expected[0]}x{expected[1]}{hint}.'
            )
        results.update(img=array, ori_shape=size, img_shape=size)
        return results


@TRANSFORMS.register_module()
class DecodeObjectMasks(BaseTransform):
    """Replaces ``rles`` by ``gt_masks`` (K, h, w) uint8 of 0 and 1 at the current ``img_shape``.

    Must come before whatever moves the image, since RLE do not move with it. No mask is held in
    original px. How masks get smaller: :func:`decode_resized`.
    """

    def transform(self, results: dict) -> dict:
        results['gt_masks'] = decode_resized(results.pop('rles'), results['img_shape'])
        return results
