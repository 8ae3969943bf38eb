"""Chooses the objects to prompt, and draws their prompts."""

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmsam.errors import ConfigError
from mmsam.options import check_whole_number
from mmsam.prompt_sampling import PromptKind, jitter_boxes, pick_pixels
from mmsam.registry import TRANSFORMS

from .order import check_decoded, check_no_prompts

_OBJECT_KEYS = ('boxes', 'gt_boxes', 'labels', 'rles', 'gt_masks')


@TRANSFORMS.register_module()
class RandomObjects(BaseTransform):
    """Keeps at most ``max_objects`` objects, drawn at random, in their order. For training only.

    Bounds memory where an image has hundreds of objects; cheapest before ``DecodeObjectMasks``.

    Args:
        max_objects: > 0.

    Raises:
        ConfigError: a wrong option, or prompts that were drawn before.
    """

    def __init__(self, max_objects: int) -> None:
        check_whole_number('max_objects of RandomObjects', max_objects, 1)
        self.max_objects = max_objects

    def transform(self, results: dict) -> dict:
        check_no_prompts(self, results)
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
    """Writes ``prompt_boxes``: ``boxes`` moved at random, see ``prompt_sampling.jitter_boxes``.

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
        boxes = torch.from_numpy(results['boxes'])
        noise = torch.from_numpy(np.random.normal(size=boxes.shape))
        size = torch.tensor([results['img_shape']])
        results['prompt_boxes'] = jitter_boxes(
            boxes, size, noise, ratio=self.ratio, max_pixels=self.max_pixels
        ).numpy()
        return results


@TRANSFORMS.register_module()
class RandomPrompts(BaseTransform):
    """Draws with what each object is prompted first: its box, a point, or a rough mask.

    Writes ``prompt_kinds`` (K,) int64, values of ``PromptKind``; ``prompt_points`` (K, 1, 2)
    float32 (x, y), input px, a pixel of the object, each being equally likely; and, if masks are
    drawn at all, ``prompt_masks`` (K, h/4, w/4) float32 (rounded up), the share of foreground in
    each low-res cell of a rough mask: the object, moved and stretched from its box to
    ``prompt_boxes``. A sample has one of each for every object; which one counts, its kind tells.
    An object without a pixel, or with none in its rough mask, is prompted with its box.

    Must stand behind all that moves the image and, if boxes are jittered, behind ``JitterBoxes``.

    Source: the paper's appendix A draws box and point equally often; masks as first prompts are
    of SAM 2's training.

    Args:
        box, point, mask: proportions, >= 0, not all 0.

    Raises:
        ConfigError: wrong proportions, or no decoded masks.
    """

    def __init__(self, box: float = 1.0, point: float = 0.0, mask: float = 0.0) -> None:
        proportions = np.array([box, point, mask])
        if proportions.min() < 0 or proportions.sum() <= 0:
            raise ConfigError(
                'box, point and mask of RandomPrompts must be >= 0 and not all 0, '
                f'got {box}, {point} and {mask}.'
            )
        self.proportions = proportions / proportions.sum()

    def transform(self, results: dict) -> dict:
        check_decoded(self, results)
        masks = results['gt_masks']
        kinds = np.random.choice(len(PromptKind), size=len(masks), p=self.proportions)
        numbers = torch.from_numpy(np.random.random(len(masks)))
        points, found = pick_pixels(torch.from_numpy(masks), numbers)
        kinds[(kinds == PromptKind.POINT) & ~found.numpy()] = PromptKind.BOX
        if self.proportions[PromptKind.MASK] > 0:
            boxes = results.get('prompt_boxes', results['boxes'])
            height, width = results['img_shape']
            rough = np.zeros((len(masks), -(-height // 4), -(-width // 4)), np.float32)
            for index in np.flatnonzero(kinds == PromptKind.MASK):
                rough[index] = _low_res_share(
                    _moved(masks[index], results['boxes'][index], boxes[index])
                )
            is_empty = ~rough.any(axis=(1, 2))
            kinds[(kinds == PromptKind.MASK) & is_empty] = PromptKind.BOX
            results['prompt_masks'] = rough
        results['prompt_kinds'] = kinds.astype(np.int64)
        results['prompt_points'] = points[:, None].float().numpy()
        return results


def _moved(mask: np.ndarray, box: np.ndarray, to_box: np.ndarray) -> np.ndarray:
    """The mask (h, w), moved and stretched so that xyxy ``box`` becomes ``to_box``."""
    scale = (to_box[2:] - to_box[:2]) / (box[2:] - box[:2])
    # OpenCV maps indices of pixels, whose centres are half a pixel further
    shift = to_box[:2] + (0.5 - box[:2]) * scale - 0.5
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]], np.float64)
    return cv2.warpAffine(mask, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST)


def _low_res_share(mask: np.ndarray) -> np.ndarray:
    """Share of foreground in cells of 4x4 px, those at the right and lower edge included."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % 4), (0, -width % 4))).astype(np.float32)
    return padded.reshape(len(padded) // 4, 4, -1, 4).mean(axis=(1, 3))
