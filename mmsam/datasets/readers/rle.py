"""Makes and checks run-length encoded masks, before pycocotools trusts them.

Its C code checks nothing: too few counts give uninitialised memory, wild polygons end the process.
"""

import numpy as np
from pycocotools import mask as mask_api

from mmsam.geometry import Size
from mmsam.structures.rle import RLE, rle_of_runs, runs_of_text


def checked_rle(counts: object, size: Size) -> RLE:
    """A compressed RLE of ``size`` from the ``counts`` of a COCO file, text or list of runs.

    Raises:
        ValueError: not the runs of a mask of that size; the message completes "counts ...".
    """
    if isinstance(counts, str):
        try:
            runs = runs_of_text(counts)
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
    rle = rle_of_runs(runs, size)
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
        rles[int(values[runs[0]])] = rle_of_runs(
            counts[:-1] if counts[-1] == 0 else counts, (ids.shape[0], ids.shape[1])
        )
    return rles


def boxes_of_rles(rles: list[RLE]) -> np.ndarray:
    """Boxes (K, 4) float32 xyxy in original px of masks that have pixels: 10 px, 10 wide."""
    if not rles:
        return np.zeros((0, 4), np.float32)
    x, y, width, height = mask_api.toBbox(rles).T
    return np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)
