"""Makes and checks run-length encoded masks, before pycocotools trusts them.

A run-length code (RLE) counts pixels down the columns, background first, foreground and background
in turn. pycocotools writes it as ``dict(size=[H, W], counts=bytes)`` ("compressed"). Its C code
checks nothing: too few counts give uninitialised memory, wild polygons end the process.
"""

from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from mmsam.geometry import Size

RLE = dict[str, Any]


def counts_of_string(text: str) -> np.ndarray:
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


def checked_rle(counts: object, size: Size) -> RLE:
    """A compressed RLE of ``size`` from the ``counts`` of a COCO file, text or list of runs.

    Raises:
        ValueError: not the runs of a mask of that size; the message completes "counts ...".
    """
    if isinstance(counts, str):
        try:
            runs = counts_of_string(counts)
        except ValueError as error:  # UnicodeEncodeError is one, too
            raise ValueError(f'cannot be decoded: {error}') from error
    elif isinstance(counts, list):
        try:
            runs = np.asarray(counts)
        except ValueError as error:
            raise ValueError('must be whole numbers') from error
        if runs.ndim != 1 or (len(runs) and runs.dtype.kind not in 'iu'):
            raise ValueError('must be whole numbers')
    else:
        raise ValueError(f'must be text or a list, not {type(counts).__name__}')
    pixels = size[0] * size[1]
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        raise ValueError(f'has runs outside 0..{pixels}')
    if runs.sum() != pixels:
        raise ValueError(f'covers {runs.sum()} pixels, the image has {size[0]}x{size[1]}={pixels}')
    rle = _rle_of_runs(runs, size)
    # pycocotools stops early at empty runs in two masks: IoU 0 of a mask with itself.
    return mask_api.encode(mask_api.decode(rle)) if (runs[1:] == 0).any() else rle


def rles_of_ids(ids: np.ndarray) -> dict[int, RLE]:
    """The mask of every value in an id map, at the cost of one pass for all of them.

    Args:
        ids: (H, W) of any integer type.

    Returns:
        Value to compressed RLE, values ascending.
    """
    flat = ids.ravel(order='F')
    cuts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], cuts, [flat.size]])
    values = flat[edges[:-1]].astype(np.int64)
    order = np.argsort(values, kind='stable')
    starts_of_value = np.flatnonzero(np.diff(values[order], prepend=values[order[0]] - 1))
    rles = {}
    for runs in np.split(order, starts_of_value[1:]):
        start_end = np.stack([edges[runs], edges[runs + 1]], axis=1).ravel()
        counts = np.diff(start_end, prepend=0, append=flat.size)
        rles[int(values[runs[0]])] = _rle_of_runs(
            counts[:-1] if counts[-1] == 0 else counts, (ids.shape[0], ids.shape[1])
        )
    return rles


def rle_of_window(window: np.ndarray, corner: tuple[int, int], size: Size) -> RLE:
    """The RLE of a mask of ``size`` (H, W) that is empty outside a window; no array of that size.

    Args:
        window: (h, w) bool.
        corner: (y, x), the pixel of the mask that the window's first one is.
        size: of the mask.
    """
    columns = np.zeros((window.shape[1], window.shape[0] + 2), np.int8)
    columns[:, 1:-1] = window.T
    column, row = np.nonzero(np.diff(columns, axis=1))
    edges = (column + corner[1]) * size[0] + row + corner[0]
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # down to the border, on from the other
    edges = np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    runs = np.diff(edges, prepend=0, append=size[0] * size[1])
    return _rle_of_runs(runs[:-1] if runs[-1] == 0 else runs, size)


def boxes_of_rles(rles: list[RLE]) -> np.ndarray:
    """Boxes (K, 4) float32 xyxy in original px of masks that have pixels: 10 px, 10 wide."""
    if not rles:
        return np.zeros((0, 4), np.float32)
    x, y, width, height = mask_api.toBbox(rles).T
    return np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)


def _rle_of_runs(counts: np.ndarray, size: Size) -> RLE:
    return mask_api.frPyObjects({'size': list(size), 'counts': counts.tolist()}, *size)
