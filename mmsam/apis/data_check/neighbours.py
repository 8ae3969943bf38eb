"""Objects of one image that share pixels or stand side by side, from the runs of their masks.

Nothing of the image's size is allocated: 375 objects on a large page cost what their runs do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmsam.structures.rle import RLE, foreground_of_rle


class _Runs(NamedTuple):
    """Pixels [start, end) in column-major order, none beyond its column, and whose they are."""

    starts: np.ndarray
    ends: np.ndarray
    owners: np.ndarray


def find_overlaps(rles: Sequence[RLE]) -> dict[tuple[int, int], int]:
    """Pairs (i, j), i < j, of the K masks that share pixels, and how many.

    Every mask that shares pixels is in a pair. Where three or more share one, not all of their
    pairs are told, nor all pixels of a pair: they would be millions for masks in a pile.
    """
    runs = _runs(rles)
    order = np.argsort(runs.starts, kind='stable')
    starts, ends, owners = (part[order] for part in runs)
    # each run with the earlier one that reaches furthest
    is_furthest = ends == np.maximum.accumulate(ends)
    earlier = np.maximum.accumulate(np.where(is_furthest, np.arange(len(ends)), 0))[:-1]
    shared = np.minimum(ends[earlier], ends[1:]) - starts[1:]
    is_shared = shared > 0
    pairs = np.sort(np.stack([owners[earlier], owners[1:]], axis=1)[is_shared], axis=1)
    found, place = np.unique(pairs, axis=0, return_inverse=True)
    counts = np.bincount(place.ravel(), shared[is_shared]).astype(int)
    return {(i, j): count for (i, j), count in zip(found.tolist(), counts.tolist(), strict=True)}


def find_touching(rles: Sequence[RLE]) -> set[int]:
    """Masks of the K that have a pixel beside one of another (4 neighbours), or share it."""
    if not rles:
        return set()
    height, width = rles[0]['size']
    runs = _runs(rles)
    column_ends = (runs.starts // height + 1) * height
    longer = runs._replace(ends=np.minimum(runs.ends + 1, column_ends))
    beside = runs._replace(starts=runs.starts + height, ends=runs.ends + height)
    span = height * (width + 1) + 1
    ways = [(runs, longer), (longer, runs), (runs, beside), (beside, runs)]
    return set(np.concatenate([_on_others(*way, span) for way in ways]).tolist())


def _runs(rles: Sequence[RLE]) -> _Runs:
    starts, ends, owners = [], [], []
    for owner, rle in enumerate(rles):
        start, end = foreground_of_rle(rle)
        height = rle['size'][0]
        first_column, last_column = start // height, (end - 1) // height
        columns = np.maximum(last_column - first_column + 1, 0)  # 0 of an empty run
        whole = np.repeat(np.arange(len(start)), columns)
        nth = np.arange(len(whole)) - np.repeat(np.cumsum(columns) - columns, columns)
        column = first_column[whole] + nth
        starts.append(np.maximum(start[whole], column * height))
        ends.append(np.minimum(end[whole], (column + 1) * height))
        owners.append(np.full(len(whole), owner))
    if not rles:
        return _Runs(*(np.zeros(0, np.int64) for _ in range(3)))
    return _Runs(np.concatenate(starts), np.concatenate(ends), np.concatenate(owners))


def _on_others(runs: _Runs, others: _Runs, span: int) -> np.ndarray:
    """The owners of those runs that cross one of ``others`` of another owner.

    Args:
        runs: none of them empty.
        others: as ``runs``.
        span: more than all places of pixels.
    """
    # the second time each owner has a range of its own
    crossings, own = (
        np.searchsorted(np.sort(others.starts + theirs), runs.ends + mine)
        - np.searchsorted(np.sort(others.ends + theirs), runs.starts + mine, side='right')
        for mine, theirs in ((0, 0), (runs.owners * span, others.owners * span))
    )
    return runs.owners[crossings > own]
