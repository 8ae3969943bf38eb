"""Resizes the mask of one object."""

import numpy as np


def resize_mask(mask: np.ndarray, out: np.ndarray) -> None:
    """Resizes a mask to the size of ``out``, by the nearest pixel.

    Pixel i of the result is the source pixel in which its centre (i + 1/2) H/h falls, as
    in Pillow and in torch's ``nearest-exact``. An object so thin that it falls between all centres
    is kept: then each result pixel is set in which the centre of one of its pixels falls.

    Args:
        mask: (H, W) uint8 of 0 and 1.
        out: (h, w) uint8 of zeros, written to.
    """
    rows_of_object = np.flatnonzero(mask.any(axis=1))
    if len(rows_of_object) == 0:
        return
    columns_of_object = np.flatnonzero(mask.any(axis=0))
    rows, top, bottom = _sources(mask.shape[0], out.shape[0], rows_of_object)
    columns, left, right = _sources(mask.shape[1], out.shape[1], columns_of_object)
    part = mask[np.ix_(rows[top:bottom], columns[left:right])]
    if part.any():
        out[top:bottom, left:right] = part
    else:
        y, x = np.nonzero(mask)
        out[_nearest(y, out.shape[0], mask.shape[0]), _nearest(x, out.shape[1], mask.shape[1])] = 1


def _sources(source: int, target: int, occupied: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Source pixel of each target pixel, and the range of targets within the occupied sources."""
    sources = _nearest(np.arange(target), source, target)
    first, last = np.searchsorted(sources, [occupied[0], occupied[-1] + 1])
    return sources, int(first), int(last)


def _nearest(pixels: np.ndarray, to_length: int, from_length: int) -> np.ndarray:
    """Floor of (pixel + 1/2) * to / from, in whole numbers."""
    return (2 * pixels + 1) * to_length // (2 * from_length)
