"""How well two masks agree: IoU, Dice and boundary IoU of RLEs."""

import math

import numpy as np
from pycocotools import mask as coco_mask

from mmsam.structures.rle import RLE, column_runs, mask_area

BAND_WIDTH = 0.02
"""Width of the boundary band, as a share of the image's diagonal."""

_WORD = 64
"""Pixels of a column that a word holds, the uppermost in the lowest bit."""


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

    Both bands are held in memory with a bit a pixel, each cut out along its mask's box.

    Source: Cheng et al., Boundary IoU (2021); boundary_iou/utils/boundary_utils.py @ 37d2558.
    """
    distance = max(1, round(BAND_WIDTH * math.hypot(*true['size'])))
    (pred_band, (y, x)), (true_band, (v, u)) = (_band(rle, distance) for rle in (pred, true))
    top, left = max(y, v), max(x, u)
    bottom = min(y + pred_band.shape[0], v + true_band.shape[0])
    right = min(x + pred_band.shape[1], u + true_band.shape[1])
    overlap = 0
    if top < bottom and left < right:
        overlap = _count(
            pred_band[top - y : bottom - y, left - x : right - x]
            & true_band[top - v : bottom - v, left - u : right - u]
        )
    return _iou_and_dice(overlap, _count(pred_band) + _count(true_band))[0]


def _iou_and_dice(overlap: int, total: int) -> tuple[float, float]:
    """From the pixels of both masks, and the sum of each one's."""
    return (overlap / (total - overlap), 2 * overlap / total) if total else (1.0, 1.0)


def _band(rle: RLE, distance: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The boundary band, words (h, w) uint64 of 64 rows each, and its corner (word, x)."""
    column, low, high = column_runs(rle)
    if len(column) == 0:
        return np.zeros((0, 0), np.uint64), (0, 0)
    word, left = int(low.min()) // _WORD, int(column.min())
    shape = int(high.max()) // _WORD - word + 1, int(column.max()) - left + 1
    column, low, high = column - left, low - _WORD * word, high - _WORD * word
    band = _words(column, low, high, shape)
    side = 2 * distance + 1
    is_deep = high - low >= side
    if shape[1] >= side and is_deep.any():
        # what is left of each column, then of `count` columns next to each other: 1, 2, 4, ... side
        inside = _words(
            column[is_deep], (low + distance)[is_deep], (high - distance)[is_deep], shape
        )
        count = 1
        while 2 * count <= side:
            inside = inside[:, :-count] & inside[:, count:]
            count *= 2
        rest = side - count
        inside = inside[:, : inside.shape[1] - rest] & inside[:, rest:]
        band[:, distance : shape[1] - distance] &= ~inside
    return band, (word, left)


def _words(
    column: np.ndarray, low: np.ndarray, high: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """A mask as words ``shape`` (h, w) uint64 of 64 rows, from its runs in the columns, (N,) each.

    Every word holds a row behind its last run.
    """
    words = np.zeros(shape, np.uint64)
    for edge in (low, high):
        bits = np.uint64(1) << (edge % _WORD).astype(np.uint64)
        np.bitwise_xor.at(words.ravel(), edge // _WORD * shape[1] + column, bits)
    # a pixel is foreground if the number of edges up to it is odd
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    is_open = np.bitwise_xor.accumulate(words >> np.uint64(_WORD - 1), axis=0)
    words[1:] ^= np.negative(is_open[:-1])
    return words


def _count(words: np.ndarray) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))
