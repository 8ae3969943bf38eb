"""Decodes masks at another size than their own, straight from their runs."""

from collections.abc import Sequence

import numpy as np

from mmsam.geometry import Size

from .rle import RLE, column_runs


def decode_resized(rles: Sequence[RLE], size: Size) -> np.ndarray:
    """Masks (K, h, w) uint8 of 0 and 1 from K compressed RLEs of size (H, W), by the nearest pixel.

    Pixel i of the result is the source pixel in which its centre (i + 1/2) H/h falls, as
    in Pillow and in torch's ``nearest-exact``. An object so thin that it falls between all centres
    is kept: then each result pixel is set in which the centre of one of its pixels falls. Only the
    runs and the result are held in memory, never a mask of size (H, W).

    Args:
        rles: K masks.
        size: (h, w) of the result.
    """
    masks = np.zeros((len(rles), *size), np.uint8)
    for rle, mask in zip(rles, masks, strict=True):
        _decode_into(rle, mask)
    return masks


def _decode_into(rle: RLE, out: np.ndarray) -> None:
    column, low, high = column_runs(rle)
    if len(column) == 0:
        return
    (height, width), (h, w) = rle['size'], out.shape
    # the runs of each target column, which are those of the source column at its centre
    sources = _nearest(np.arange(w), width, w)
    first, behind = (np.searchsorted(column, sources, side) for side in ('left', 'right'))
    number = behind - first
    run = np.arange(number.sum()) + np.repeat(first - np.cumsum(number) + number, number)
    rows = _nearest(np.arange(h), height, h)
    tops, bottoms = np.searchsorted(rows, low[run]), np.searchsorted(rows, high[run])
    is_seen = tops < bottoms
    if not is_seen.any():
        lengths = high - low
        row = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - high, lengths)
        out[_nearest(row, h, height), _nearest(np.repeat(column, lengths), w, width)] = 1
        return
    column, tops, bottoms = (
        values[is_seen] for values in (np.repeat(np.arange(w), number), tops, bottoms)
    )
    top, bottom, left, right = tops.min(), bottoms.max(), column[0], column[-1] + 1
    edges = np.stack([tops, bottoms], axis=1) - top + (column - left)[:, None] * (bottom - top)
    area = (right - left) * (bottom - top)
    runs = np.diff(edges.ravel(), prepend=0, append=area)  # background and foreground in turn
    pixels = np.repeat(np.arange(len(runs)).astype(np.uint8) & 1, runs)
    out[top:bottom, left:right] = pixels.reshape(right - left, bottom - top).T


def _nearest(pixels: np.ndarray, to_length: int, from_length: int) -> np.ndarray:
    """Floor of (pixel + 1/2) * to / from, in whole numbers."""
    return (2 * pixels + 1) * to_length // (2 * from_length)
