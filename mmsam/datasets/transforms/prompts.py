"""Chooses the objects to prompt, and draws their prompts."""

import numpy as np
from mmcv.transforms import BaseTransform

from mmsam.errors import ConfigError
from mmsam.registry import TRANSFORMS

_OBJECT_KEYS = ('boxes', 'gt_boxes', 'prompt_boxes', 'labels', 'rles', 'gt_masks')


@TRANSFORMS.register_module()
class RandomObjects(BaseTransform):
    """Keeps at most ``max_objects`` objects, drawn at random, in their order. For training only.

    Bounds memory where an image has hundreds of objects; cheapest before ``DecodeObjectMasks``.

    Args:
        max_objects: > 0.
    """

    def __init__(self, max_objects: int) -> None:
        if max_objects < 1:
            raise ConfigError(f'max_objects of RandomObjects must be > 0, got {max_objects}.')
        self.max_objects = max_objects

    def transform(self, results: dict) -> dict:
        count = len(results['boxes'])
        if count <= self.max_objects:
            return results
        chosen = np.sort(np.random.permutation(count)[: self.max_objects])
        for key in _OBJECT_KEYS:
            if key in results:
                objects = results[key]
                results[key] = (
                    [objects[i] for i in chosen] if isinstance(objects, list) else objects[chosen]
                )
        return results


@TRANSFORMS.register_module()
class JitterBoxes(BaseTransform):
    """Writes ``prompt_boxes``: ``boxes`` as inexact as a user or a detector draws them.

    As SAM's paper describes its training: each coordinate moves by a normal deviate whose standard
    deviation is ``ratio`` of the box's side, inwards as well as outwards, at most ``max_pixels``.
    The box then ends at the image's edges and keeps a side of at least 1 px.

    Must stand behind ``ResizeLongestSide``: lengths are input px. The paper's 20 px belong to an
    input of 1024 px; at 256 px the same bound is 5 px.

    Args:
        ratio: standard deviation as a share of the side, >= 0.
        max_pixels: greatest shift, input px, >= 0.
    """

    def __init__(self, ratio: float = 0.1, max_pixels: float = 20.0) -> None:
        if ratio < 0 or max_pixels < 0:
            raise ConfigError(
                f'ratio and max_pixels of JitterBoxes must be >= 0, got {ratio} and {max_pixels}.'
            )
        self.ratio = ratio
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict:
        boxes = results['boxes']
        height, width = results['img_shape']
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        noise = np.random.normal(size=boxes.shape) * self.ratio * sides
        moved = boxes + noise.clip(-self.max_pixels, self.max_pixels)
        limits = np.array([width, height])
        low, high = moved[:, :2].clip(0, limits), moved[:, 2:].clip(0, limits)
        centre = ((low + high) / 2).clip(0.5, limits - 0.5)
        thin = high - low < 1
        low, high = np.where(thin, centre - 0.5, low), np.where(thin, centre + 0.5, high)
        results['prompt_boxes'] = np.concatenate([low, high], axis=1).astype(np.float32)
        return results
