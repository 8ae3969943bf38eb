"""Large-scale jitter."""

import numpy as np
from mmcv.transforms import BaseTransform

from mmsam.datasets.cropping import CroppedObjects, crop_objects
from mmsam.errors import ConfigError
from mmsam.geometry import Window
from mmsam.registry import TRANSFORMS

from .geometric import ResizeLongestSide
from .order import check_no_prompts, check_not_decoded

_WINDOWS = 10
"""Places that are tried for a window with at least one object."""


@TRANSFORMS.register_module()
class RandomScaleCrop(BaseTransform):
    """Large-scale jitter: the image at a random scale, cropped or padded to the square.

    Stands in the place of ``ResizeLongestSide``. The scale is uniform within ``scale_range``. Up to
    1 the whole image is resized to that share of ``image_size``, the rest is padding. Above 1 a
    window of the image, 1/scale of its longest side high and wide, is cut out in original px and
    fills the square. How objects are cut: ``crop_objects``. If none of ten windows holds an object
    of an image that has some, the whole image is taken, at scale 1.

    Drops ``gt_boxes``; sets ``ori_shape`` to the size of the window.

    Source: "Simple Copy-Paste is a Strong Data Augmentation Method" (Ghiasi et al., 2021), whose
    range is (0.1, 2).

    Args:
        image_size: side of the padded square, px.
        scale_range: lowest and highest scale, > 0.

    Raises:
        ConfigError: a wrong option, decoded masks, or prompts that were drawn before.
    """

    def __init__(self, image_size: int, scale_range: tuple[float, float] = (0.1, 2.0)) -> None:
        if not (len(scale_range) == 2 and 0 < scale_range[0] <= scale_range[1] < np.inf):
            raise ConfigError(
                'scale_range of RandomScaleCrop must be (low, high), 0 < low <= high, '
                f'got {scale_range}.'
            )
        self.full_size = ResizeLongestSide(image_size)
        self.scale_range = scale_range

    def transform(self, results: dict) -> dict:
        check_no_prompts(self, results)
        check_not_decoded(self, results)
        results.pop('gt_boxes', None)
        scale = np.random.uniform(*self.scale_range)
        if scale <= 1:
            side = max(1, round(scale * self.full_size.image_size))
            return ResizeLongestSide(side)(results)
        found = self._window(results, scale)
        if found is not None:
            (top, left, height, width), objects = found
            # a copy, so that the rest of a large image is not kept
            image = results['img'][top : top + height, left : left + width].copy()
            results.update(
                img=image,
                ori_shape=(height, width),
                img_shape=(height, width),
                labels=results['labels'][objects.kept],
                rles=objects.rles,
                boxes=objects.boxes,
            )
        return self.full_size(results)

    def _window(self, results: dict, scale: float) -> tuple[Window, CroppedObjects] | None:
        height, width = results['img_shape']
        side = max(1, round(max(height, width) / scale))
        rows, columns = min(height, side), min(width, side)
        for _ in range(_WINDOWS):
            top, left = np.random.randint(height - rows + 1), np.random.randint(width - columns + 1)
            window = Window(int(top), int(left), rows, columns)
            objects = crop_objects(results['rles'], results['boxes'], window)
            if len(objects.kept) or not results['rles']:
                return window, objects
        return None
