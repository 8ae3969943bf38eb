"""Binary masks as COCO's run-length encoding (RLE).

A run-length code counts pixels down the columns, background first, foreground and background in
turn. pycocotools writes it as ``dict(size=[H, W], counts=bytes)`` ("compressed").
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mmsam.geometry import Size

RLE = dict[str, Any]
"""``{'size': [H, W], 'counts': bytes}``, compressed."""


def encode_masks(masks: np.ndarray) -> list[RLE]:
    """Masks (K, H, W) bool or uint8 of 0 and 1, to K compressed RLEs."""
    if len(masks) == 0:
        return []
    # pycocotools wants (H, W, K) in Fortran order; this transpose is that without another copy
    column_major = np.ascontiguousarray(masks.astype(np.uint8, copy=False).transpose(0, 2, 1))
    return coco_mask.encode(column_major.T)


def mask_area(rle: RLE) -> int:
    """Number of pixels of a mask."""
    return int(coco_mask.area(rle))


def encode_window(window: np.ndarray, corner: tuple[int, int], size: Size) -> RLE:
    """The RLE of a mask of ``size`` (H, W) that is empty outside a window; no array of that size.

    Args:
        window: (h, w) bool.
        corner: (y, x), the pixel of the mask that the window's first one is.
        size: of the mask.
    """
    return rle_of_edges(edges_of_window(window, corner, size[0]), size)


def decode_extent(rle: RLE) -> tuple[np.ndarray, tuple[int, int]]:
    """A mask cut out along the box around its pixels, without an array of the mask's own size.

    Returns:
        The window (h, w) uint8 of 0 and 1, (0, 0) if the mask is empty; and its corner (y, x), the
        pixel of the mask that the window's first one is.
    """
    return window_of_runs(*column_runs(rle))


def window_of_runs(
    column: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, tuple[int, int]]:
    """The box around N runs of foreground as an array, and where it lies.

    Args:
        column, low, high: (N,) int64, in order, see :func:`column_runs`.

    Returns:
        As of :func:`decode_extent`.
    """
    if len(column) == 0:
        return np.zeros((0, 0), np.uint8), (0, 0)
    top, left = int(low.min()), int(column[0])
    height, width = int(high.max()) - top, int(column[-1]) + 1 - left
    edges = np.stack([low, high], axis=1) - top + (column - left)[:, None] * height
    runs = np.diff(edges.ravel(), prepend=0, append=width * height)
    pixels = np.repeat(np.arange(len(runs)).astype(np.uint8) & 1, runs)  # background first
    return np.ascontiguousarray(pixels.reshape(width, height).T), (top, left)


def edges_of_window(window: np.ndarray, corner: tuple[int, int], height: int) -> np.ndarray:
    """Where the runs of foreground in a window start and end, see :func:`rle_of_edges`.

    Args:
        window: (h, w) bool.
        corner: (y, x), the pixel of the mask that the window's first one is.
        height: H of the mask.

    Returns:
        (2N,) int64: start, end, start, ... as places in the mask, counted down its columns.
    """
    columns = np.zeros((window.shape[1], window.shape[0] + 2), np.int8)
    columns[:, 1:-1] = window.T
    column, row = np.nonzero(np.diff(columns, axis=1))
    return (column + corner[1]) * height + row + corner[0]


def rle_of_edges(edges: np.ndarray, size: Size) -> RLE:
    """The RLE of size (H, W) whose runs of foreground start and end at ``edges`` (2N,) int64.

    Ascending; where one run starts in the very place in which the last one ended, they are joined.
    """
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    runs = np.diff(edges, prepend=0, append=size[0] * size[1])
    return rle_of_runs(runs[:-1] if runs[-1] == 0 else runs, size)


def move_rle(rle: RLE, shift: tuple[int, int], size: Size) -> RLE:
    """The mask moved by whole pixels into another frame: a crop, or a part put back into a whole.

    Args:
        rle: a mask of any size.
        shift: (y, x), added to the places of its pixels.
        size: (H, W) of the result; pixels that leave it are cut off.
    """
    column, low, high = column_runs(rle)
    low, high = low + shift[0], high + shift[0]
    column = column + shift[1]
    low, high = low.clip(0, size[0]), high.clip(0, size[0])
    inside = (low < high) & (column >= 0) & (column < size[1])
    edges = np.stack([low, high], axis=1)[inside] + column[inside, None] * size[0]
    return rle_of_edges(edges.ravel(), size)


def column_runs(rle: RLE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The N runs of foreground, each cut where a column of the mask ends.

    Returns:
        (N,) int64 each: its column, its first row, and the row behind its last.
    """
    height = rle['size'][0]
    starts, ends = foreground_of_rle(rle)
    first = starts // height
    columns = (ends - 1) // height - first + 1
    piece = np.arange(columns.sum()) - np.repeat(np.cumsum(columns) - columns, columns)
    column = np.repeat(first, columns) + piece
    low = np.maximum(np.repeat(starts, columns) - column * height, 0)
    high = np.minimum(np.repeat(ends, columns) - column * height, height)
    return column, low, high


def foreground_of_rle(rle: RLE) -> tuple[np.ndarray, np.ndarray]:
    """Where the N runs of foreground start and end, (N,) int64 each, counted down the columns."""
    edges = np.cumsum(runs_of_rle(rle))
    ends = edges[1::2]
    return edges[:-1:2][: len(ends)], ends


def rle_of_runs(runs: np.ndarray, size: Size) -> RLE:
    """The RLE of size (H, W) with these runs (N,), which must fill it."""
    return coco_mask.frPyObjects({'size': list(size), 'counts': runs.tolist()}, *size)


def runs_of_rle(rle: RLE) -> np.ndarray:
    """The runs (N,) int64 of a compressed RLE."""
    return runs_of_text(rle['counts'].decode('ascii'))


def runs_of_text(text: str) -> np.ndarray:
    """The runs (N,) int64 that the ``counts`` of a compressed RLE stand for.

    A character holds 5 bits, lowest first, and whether more follow; from the fourth on, runs are
    differences to the last but one.

    Raises:
        ValueError: the text is no such code.
    """
    codes = np.frombuffer(text.encode('ascii'), np.uint8).astype(np.int64) - 48
    if len(codes) == 0:
        raise ValueError('it is empty')
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError('it has characters that are no code')
    ends = np.flatnonzero(codes < 32)
    if len(ends) == 0 or ends[-1] != len(codes) - 1:
        raise ValueError('it is cut off')
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 6:
        raise ValueError('it has a run that is too long')
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values[codes[ends] & 16 != 0] -= (1 << (5 * lengths))[codes[ends] & 16 != 0]
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
