"""Transforms that move image, boxes and masks together."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmsam.errors import ConfigError
from mmsam.geometry import Orientation, resize_longest_side_size, scale_boxes
from mmsam.options import check_choice, check_whole_number
from mmsam.registry import TRANSFORMS
from mmsam.rgb_image import resize_rgb
from mmsam.structures.resized_masks import decode_resized
from mmsam.structures.rle import encode_masks

from .order import check_decoded, check_no_prompts


@TRANSFORMS.register_module()
class ResizeLongestSide(BaseTransform):
    """Resizes image, boxes and ``gt_masks`` so that the longest side is ``image_size``.

    The image is resized as 8 bits by Pillow, bilinear with antialiasing, masks by the nearest
    pixel. Sets ``img_shape`` (h, w), the size in input px. Without ``img``, as where the image is
    encoded already, the rest is moved alone; so it is by the other transforms here.

    Source: segment_anything/utils/transforms.py @ 6fdee8f, ``apply_image`` and ``apply_boxes``.

    Args:
        image_size: side of the padded square, px.

    Raises:
        ConfigError: a wrong option, prompts that were drawn before, or an image whose tiles the
            model resizes.
    """

    def __init__(self, image_size: int) -> None:
        check_whole_number('image_size of ResizeLongestSide', image_size, 1)
        self.image_size = image_size

    def transform(self, results: dict) -> dict:
        check_no_prompts(self, results)
        if 'tiles' in results:
            raise ConfigError(
                'ResizeLongestSide must not stand in the pipeline of a validation or test with '
                'tiling: the model resizes each tile.'
            )
        old = results['img_shape']
        new = resize_longest_side_size(old, self.image_size)
        results['img_shape'] = new
        if 'img' in results:
            results['img'] = resize_rgb(results['img'], new)
        results['boxes'] = scale_boxes(torch.from_numpy(results['boxes']), old, new).numpy()
        if 'gt_masks' in results:
            results['gt_masks'] = decode_resized(encode_masks(results['gt_masks']), new)
        return results


@TRANSFORMS.register_module()
class RandomPromptedFlip(BaseTransform):
    """Flips image, boxes and ``gt_masks`` together. For training only.

    Drops ``gt_boxes``, flipped or not, as the original px are no longer those of the sample.
    Keeps ``orientation``, an ``Orientation``, up to date.

    Args:
        prob: probability of a flip, 0 to 1.
        direction: 'horizontal' or 'vertical'.

    Raises:
        ConfigError: a wrong option, masks that are still RLE, or prompts that were drawn before.
    """

    def __init__(self, prob: float = 0.5, direction: str = 'horizontal') -> None:
        check_choice('direction of RandomPromptedFlip', direction, ('horizontal', 'vertical'))
        if not 0 <= prob <= 1:
            raise ConfigError(f'prob of RandomPromptedFlip must be within 0 and 1, got {prob}.')
        self.prob = prob
        self.direction = direction

    def transform(self, results: dict) -> dict:
        check_no_prompts(self, results)
        check_decoded(self, results)
        results.pop('gt_boxes', None)
        if np.random.random() >= self.prob:
            return results
        axis = 1 if self.direction == 'horizontal' else 0
        results['orientation'] = _orientation(results).flipped(self.direction)
        if 'img' in results:
            results['img'] = np.ascontiguousarray(np.flip(results['img'], axis))
        results['gt_masks'] = np.ascontiguousarray(np.flip(results['gt_masks'], axis + 1))
        low, high = (0, 2) if self.direction == 'horizontal' else (1, 3)
        boxes = results['boxes'].copy()
        boxes[:, low] = results['img_shape'][axis] - results['boxes'][:, high]
        boxes[:, high] = results['img_shape'][axis] - results['boxes'][:, low]
        results['boxes'] = boxes
        return results

    def orientations(self, before: Orientation) -> list[Orientation]:
        """What an image that lies as ``before`` may become."""
        left = [before] if self.prob < 1 else []
        return [*left, before.flipped(self.direction)] if self.prob > 0 else left


@TRANSFORMS.register_module()
class RandomPromptedRotate90(BaseTransform):
    """Turns image, boxes and ``gt_masks`` together by 0, 90, 180 or 270 degrees, equally likely.

    For training only. Drops ``gt_boxes``, as the original px are no longer those of the sample.
    Keeps ``orientation``, an ``Orientation``, up to date.

    Raises:
        ConfigError: masks that are still RLE, or prompts that were drawn before.
    """

    def transform(self, results: dict) -> dict:
        check_no_prompts(self, results)
        check_decoded(self, results)
        results.pop('gt_boxes', None)
        turns = int(np.random.randint(4))
        results['orientation'] = _orientation(results).turned(turns)
        for _ in range(turns):  # counterclockwise
            width = results['img_shape'][1]
            x1, y1, x2, y2 = results['boxes'].T
            results['boxes'] = np.stack([y1, width - x2, y2, width - x1], axis=1)
            results['img_shape'] = results['img_shape'][::-1]
        for key, axes in (('img', (0, 1)), ('gt_masks', (1, 2))):
            if key in results:
                results[key] = np.ascontiguousarray(np.rot90(results[key], turns, axes))
        return results

    def orientations(self, before: Orientation) -> list[Orientation]:
        """What an image that lies as ``before`` may become."""
        return [before.turned(turns) for turns in range(4)]


def _orientation(results: dict) -> Orientation:
    return results.get('orientation', Orientation())
