"""From the mask decoder's logits to masks in original px."""

import numpy as np
import torch
from torch import Tensor

from mmsam.geometry import (
    LOW_RES_STRIDE,
    MASK_THRESHOLD,
    Size,
    count_above_around,
    enlarge_cells,
)

from .rle import RLE, rle_of_edges

_PIXELS_AT_ONCE = 2**22
"""Pixels in original px that stand in memory at the same time."""


def rles_of_logits(low_res_logits: Tensor, input_size: Size, original_size: Size) -> list[RLE]:
    """The masks of ``encode_masks(logits_to_original(...) > MASK_THRESHOLD)``, by their edges only.

    Both steps of ``logits_to_original`` mix neighbours only. So pixels are computed only in low-res
    cells that have a neighbour on the other side of the threshold: time and memory follow the
    length of the outlines, not the size of the image or the objects.

    Args:
        low_res_logits: (..., S/4, S/4); all but the last two dimensions are flattened, in order.
        input_size: (h, w) in input px.
        original_size: (H, W) in original px.
    """
    logits = low_res_logits.detach().flatten(0, -3).float().cpu().numpy()
    rows = _Side(input_size[0], original_size[0])
    columns = _Side(input_size[1], original_size[1])
    grid = _Grid(logits, rows, columns)
    length = original_size[0] * original_size[1] + 1  # a run may end behind the last pixel
    edges = np.sort(_edges(logits, grid, rows, columns, original_size[0], length))
    bounds = np.searchsorted(edges, np.arange(len(logits) + 1) * length)
    return [
        rle_of_edges(edges[start:end] - mask * length, original_size)
        for mask, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
    ]


class _Side:
    """The original pixels along one side, by the N low-res cells in which they begin.

    An original pixel lies between two input pixels, as torch's bilinear resize computes it, in
    float32 with one rounding (fused multiply-add). It belongs to the cell of the first of them.
    Cells without a pixel are left out. All others have L pixels here: those with less repeat their
    last one.

    Attributes:
        cells: (N,) int64, which cells.
        starts, counts: (N,) int64, the first original pixel of each, and how many it has.
        pixels: (N, L) int64, the original pixels.
        steps: (N, L) int64, 0 to 3, how many input pixels into its cell each one is.
        weights: (N, L) float32, the share of the second input pixel.
    """

    def __init__(self, from_length: int, to_length: int) -> None:
        scale = np.float32(from_length) / np.float32(to_length)
        exact = (np.arange(to_length) + 0.5) * np.float64(scale) - 0.5
        place = np.maximum(exact.astype(np.float32), 0)
        low = np.minimum(place.astype(np.int64), from_length - 1)
        weight = place - low.astype(np.float32)
        weight[low == from_length - 1] = 0  # there is no second one
        self.cells, self.starts, self.counts = np.unique(
            low // LOW_RES_STRIDE, return_index=True, return_counts=True
        )
        slots = np.arange(self.counts.max())
        self.pixels = self.starts[:, None] + np.minimum(slots, self.counts[:, None] - 1)
        self.steps = low[self.pixels] - LOW_RES_STRIDE * self.cells[:, None]
        self.weights = weight[self.pixels]


class _Grid:
    """The low-res cells of K masks by what their pixels are.

    Rows and columns are those of the two ``_Side``; one row more above and below is background.

    Attributes:
        is_foreground: (K, R + 2, C) bool, of cells all of whose pixels are equal.
        mixed: three (N,) int64, mask, row and column of the cells whose pixels are to be computed:
            those with a neighbour beyond the threshold, and those that differ from the next cell in
            their column.
        places: (K, R + 2, C) int32, the place of each cell in ``mixed``, -1 elsewhere.
    """

    def __init__(self, logits: np.ndarray, rows: _Side, columns: _Side) -> None:
        counts = count_above_around(torch.from_numpy(logits)).numpy()
        counts = counts[:, rows.cells][:, :, columns.cells]
        counts = np.pad(counts, [(0, 0), (1, 1), (0, 0)])
        self.is_foreground = counts == 9
        is_plain = self.is_foreground | (counts == 0)
        changes = self.is_foreground[:, 1:] != self.is_foreground[:, :-1]
        changes &= is_plain[:, 1:] & is_plain[:, :-1]
        is_mixed = ~is_plain
        is_mixed[:, 1:] |= changes
        is_mixed[:, :-1] |= changes
        is_mixed[:, [0, -1]] = False
        self.mixed = np.unravel_index(np.flatnonzero(is_mixed), is_mixed.shape)
        self.places = np.full(is_mixed.shape, -1, np.int32)
        self.places[self.mixed] = np.arange(len(self.mixed[0]))


def _edges(
    logits: np.ndarray, grid: _Grid, rows: _Side, columns: _Side, height: int, length: int
) -> np.ndarray:
    """Where runs of foreground start and end, (2N,) int64 in no order; see ``rle_of_edges``.

    Places of mask k are counted from ``k * length``.
    """
    mask, row, column = grid.mixed
    row = row - 1  # of the sides
    origins = mask * length
    lefts = columns.pixels[column].T * height  # (L, N), place of the column's first pixel
    is_column = np.arange(len(lefts))[:, None] < columns.counts[column]
    first, last = np.empty((2, *lefts.shape), bool)
    edges = []
    number = max(1, _PIXELS_AT_ONCE // (rows.pixels.shape[1] * len(lefts)))
    for start in range(0, len(mask), number):
        part = slice(start, start + number)
        pixels = _pixels(logits, mask[part], row[part], column[part], rows, columns)
        first[:, part], last[:, part] = pixels[0], pixels[-1]
        change = (pixels[1:] != pixels[:-1]) & is_column[:, part]
        y, x, cell = np.unravel_index(np.flatnonzero(change), change.shape)
        cell = cell + start
        edges.append(origins[cell] + lefts[x, cell] + rows.pixels[row[cell], y + 1])
    above, below = (grid.places[mask, row + step, column] for step in (0, 2))
    before = np.where(above < 0, grid.is_foreground[mask, row, column], last[:, above])
    after = grid.is_foreground[mask, row + 2, column]
    tops = rows.starts[row]
    for change, y in (
        (first != before, tops),
        ((last != after) & (below < 0), tops + rows.counts[row]),
    ):
        x, cell = np.nonzero(change & is_column)
        edges.append(origins[cell] + lefts[x, cell] + y[cell])
    return np.concatenate(edges)


def _pixels(
    logits: np.ndarray,
    mask: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    rows: _Side,
    columns: _Side,
) -> np.ndarray:
    """The pixels (Ly, Lx, N) bool in original px of N cells, by rows and columns of the sides."""
    steps = np.arange(-1, 2)[:, None]
    last = logits.shape[-1] - 1
    y, x = (
        np.clip(side.cells[place] + steps, 0, last)
        for side, place in ((rows, row), (columns, column))
    )
    around = torch.from_numpy(logits[mask, y[:, None], x])  # (3, 3, N)
    inputs = _input_pixels(_input_pixels(around.transpose(0, 1)).transpose(0, 1))  # (5, 5, N)
    above = (inputs > MASK_THRESHOLD).flatten(0, 1)
    pixels = above[0].repeat(rows.pixels.shape[1], columns.pixels.shape[1], 1)
    is_mixed = above.any(dim=0) & ~above.all(dim=0)  # of the others all pixels are equal
    row, column = row[is_mixed.numpy()], column[is_mixed.numpy()]
    mixed = _mix(inputs[..., is_mixed].transpose(0, 1), columns, column).transpose(0, 1)
    pixels[..., is_mixed] = _mix(mixed, rows, row) > MASK_THRESHOLD
    return pixels.numpy()


def _input_pixels(cells: Tensor) -> Tensor:
    """Input pixels (5, ..., N) from N cells and their neighbours on both sides (3, ..., N).

    They are the four of the cell and the first of the next one.
    """
    before, at, after = cells
    return torch.stack([*enlarge_cells(before, at, after), 0.375 * at + 0.625 * after])


def _mix(inputs: Tensor, side: _Side, place: np.ndarray) -> Tensor:
    """Original pixels (L, M, N) from input pixels (5, M, N) of N cells, along the first axis."""
    step = torch.from_numpy(side.steps.T[:, place])[:, None].expand(-1, inputs.shape[1], -1)
    weight = torch.from_numpy(side.weights.T[:, place])[:, None]
    low, high = inputs.gather(0, step), inputs.gather(0, step + 1)
    return low * (1 - weight) + high * weight
