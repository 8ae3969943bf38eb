"""How well two masks agree: IoU, Dice and boundary IoU of RLEs."""

import math

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from mmsam.structures.rle import RLE, decode_extent, mask_area

BAND_WIDTH = 0.02
"""Width of the boundary band, as a share of the image's diagonal."""


def iou_and_dice(pred: RLE, true: RLE) -> tuple[float, float]:
    """IoU and Dice of two masks of equal size; 1 where both are empty."""
    overlap = mask_area(coco_mask.merge([pred, true], intersect=True))
    return _iou_and_dice(overlap, mask_area(pred) + mask_area(true))


def boundary_iou(pred: RLE, true: RLE) -> float:
    """IoU of the boundary bands of two masks of equal size (H, W); 1 where both are empty.

    The band of a mask is those of its pixels that are at most d pixels, in rows and in columns,
    away from a pixel that is not of the mask; what lies beyond the image's border is not. d is
    ``BAND_WIDTH`` of the diagonal, rounded, at least 1. A mask that is nowhere wider than 2 d is
    all band: then this is the IoU of the masks.

    Nothing is held in memory but the two masks, each cut out along its box, and their bands.

    Source: Cheng et al., Boundary IoU (2021); boundary_iou/utils/boundary_utils.py @ 37d2558.
    """
    distance = max(1, round(BAND_WIDTH * math.hypot(*true['size'])))
    (pred_band, (y, x)), (true_band, (v, u)) = (_band(rle, distance) for rle in (pred, true))
    top, left = max(y, v), max(x, u)
    bottom = min(y + pred_band.shape[0], v + true_band.shape[0])
    right = min(x + pred_band.shape[1], u + true_band.shape[1])
    overlap = 0
    if top < bottom and left < right:
        both = (
            pred_band[top - y : bottom - y, left - x : right - x]
            & true_band[top - v : bottom - v, left - u : right - u]
        )
        overlap = int(np.count_nonzero(both))
    total = int(np.count_nonzero(pred_band)) + int(np.count_nonzero(true_band))
    return _iou_and_dice(overlap, total)[0]


def _iou_and_dice(overlap: int, total: int) -> tuple[float, float]:
    """From the pixels of both masks, and the sum of each one's."""
    return (overlap / (total - overlap), 2 * overlap / total) if total else (1.0, 1.0)


def _band(rle: RLE, distance: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The boundary band (h, w) uint8 in the box around a mask, and the box's corner (y, x)."""
    mask, corner = decode_extent(rle)
    side = 2 * distance + 1
    if min(mask.shape) < side:
        return mask, corner
    kernel = np.ones((side, side), np.uint8)
    # nothing of the mask lies outside of its box
    inside = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask - inside, corner
