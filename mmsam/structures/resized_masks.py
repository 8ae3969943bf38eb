"""Decodes masks at another size than their own, straight from their runs."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from mmsam.geometry import Size

from .rle import RLE, foreground_of_rle


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
    height, width = rle['size']
    x, y, box_width, box_height = (int(side) for side in coco_mask.toBbox(rle))
    if box_width == 0:
        return
    starts, ends = foreground_of_rle(rle)
    rows, top, bottom = _sources(height, out.shape[0], y, y + box_height)
    columns, left, right = _sources(width, out.shape[1], x, x + box_width)
    places = columns[left:right] * height + rows[top:bottom, None]
    run = np.searchsorted(starts, places, side='right') - 1
    part = (run >= 0) & (places < ends[run])
    if part.any():
        out[top:bottom, left:right] = part
        return
    lengths = ends - starts
    pixels = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    rows, columns = pixels % height, pixels // height
    out[_nearest(rows, out.shape[0], height), _nearest(columns, out.shape[1], width)] = 1


def _sources(source: int, target: int, start: int, end: int) -> tuple[np.ndarray, int, int]:
    """Source pixel of each target pixel, and the range of targets whose are in start..end."""
    sources = _nearest(np.arange(target), source, target)
    first, last = np.searchsorted(sources, [start, end])
    return sources, int(first), int(last)


def _nearest(pixels: np.ndarray, to_length: int, from_length: int) -> np.ndarray:
    """Floor of (pixel + 1/2) * to / from, in whole numbers."""
    return (2 * pixels + 1) * to_length // (2 * from_length)
