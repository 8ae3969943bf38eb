"""Decodes masks at another size than their own, straight from their runs."""

from collections.abc import Sequence

import numpy as np

from mmsam.geometry import Size

from .rle import RLE, column_runs, window_of_runs


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
    columns = np.repeat(np.arange(w), number)
    window, (top, left) = window_of_runs(columns[is_seen], tops[is_seen], bottoms[is_seen])
    out[top : top + window.shape[0], left : left + window.shape[1]] = window


def _nearest(pixels: np.ndarray, to_length: int, from_length: int) -> np.ndarray:
    """Floor of (pixel + 1/2) * to / from, in whole numbers."""
    return (2 * pixels + 1) * to_length // (2 * from_length)
