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
    """Pairs (i, j), i < j, of the K masks that share pixels, and how many."""
    runs = _runs(rles)
    first, second = _crossings(runs.starts, runs.ends)
    shared = np.minimum(runs.ends[first], runs.ends[second]) - runs.starts[second]
    found: dict[tuple[int, int], int] = {}
    for i, j, count in zip(runs.owners[first], runs.owners[second], shared, strict=True):
        pair = (int(min(i, j)), int(max(i, j)))
        found[pair] = found.get(pair, 0) + int(count)
    return found


def find_touching(rles: Sequence[RLE]) -> set[int]:
    """Masks of the K that have a pixel beside one of another (4 neighbours), or share it."""
    if not rles:
        return set()
    height = rles[0]['size'][0]
    runs = _runs(rles)
    column_ends = (runs.starts // height + 1) * height
    below = _crossings(runs.starts, np.minimum(runs.ends + 1, column_ends))
    # The columns moved one to the right cross those that they were beside.
    starts = np.concatenate([runs.starts, runs.starts + height])
    ends = np.concatenate([runs.ends, runs.ends + height])
    beside = _crossings(starts, ends)
    owners = np.tile(runs.owners, 2)
    pairs = np.concatenate([np.stack(below), np.stack(beside)], axis=1)
    first, second = owners[pairs]
    return set(
        np.unique(np.concatenate([first[first != second], second[first != second]])).tolist()
    )


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


def _crossings(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of each two intervals [start, end) that cross, the one that starts first first."""
    order = np.argsort(starts, kind='stable')
    sorted_starts = starts[order]
    # all that start behind an interval's start and before its end cross it
    counts = np.searchsorted(sorted_starts, ends[order]) - np.arange(len(order)) - 1
    first = np.repeat(np.arange(len(order)), counts)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[first], order[second]
