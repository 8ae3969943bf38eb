"""Masks whose runs are written in every way, and their runs."""

from collections.abc import Iterator

import numpy as np


def random_masks() -> Iterator[np.ndarray]:
    """Sparse, noisy and dense ones, a full one and a rectangle, uint8 of 0 and 1."""
    rng = np.random.default_rng(0)
    for density in (0.01, 0.5, 0.99):
        yield (rng.random((37, 53)) < density).astype(np.uint8)
    yield np.ones((300, 400), np.uint8)
    blob = np.zeros((300, 400), np.uint8)
    blob[20:280, 30:390] = 1
    yield blob


def runs_of(mask: np.ndarray) -> list[int]:
    """Runs down the columns, background first, counted pixel by pixel."""
    flat = np.concatenate([[0], mask.T.ravel()])
    return np.diff(np.flatnonzero(np.diff(flat)), prepend=0, append=mask.size).tolist()
