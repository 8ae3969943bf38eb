"""Which tiles of an image see a box, and one mask from what is predicted in each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmsam.geometry import (
    MASK_THRESHOLD,
    Size,
    Window,
    logits_to_original,
    resize_longest_side_size,
)
from mmsam.structures.rle import RLE, edges_of_window, rle_of_edges


class TileLogits(NamedTuple):
    """A prediction in one tile: low-res logits (S/4, S/4)."""

    window: Window
    logits: Tensor


def tiles_of_box(box: Tensor, tiles: Sequence[Window], size: Size) -> list[int]:
    """The tiles in which a box is predicted.

    One tile, if the box lies in it completely: of several, that in which it is farthest from the
    edges of the tile that are no edges of the image. Else those that together see all of the box
    that any tile sees; a tile that adds nothing to another one is left out.

    Args:
        box: (4,) xyxy, original px.
        tiles: that cover the image.
        size: (H, W) of the image.

    Returns:
        Indices of ``tiles``.
    """
    x1, y1, x2, y2 = box.tolist()
    candidates = []
    for index, (top, left, height, width) in enumerate(tiles):
        part = (max(x1, left), max(y1, top), min(x2, left + width), min(y2, top + height))
        area = max(0, part[2] - part[0]) * max(0, part[3] - part[1])
        if area == 0:
            continue
        margins = [
            inside
            for inside, at_edge in (
                (part[0] - left, left == 0),
                (part[1] - top, top == 0),
                (left + width - part[2], left + width == size[1]),
                (top + height - part[3], top + height == size[0]),
            )
            if not at_edge
        ]
        candidates.append((-area, -min(margins, default=0), index, part))
    chosen: list[int] = []
    for *_, index, part in sorted(candidates):
        if not any(_holds(tiles[other], part) for other in chosen):
            chosen.append(index)
    return sorted(chosen)


def _holds(tile: Window, part: tuple[float, float, float, float]) -> bool:
    top, left, height, width = tile
    x1, y1, x2, y2 = part
    return left <= x1 and top <= y1 and x2 <= left + width and y2 <= top + height


def blend_tiles(parts: Sequence[TileLogits], image_size: int, size: Size) -> RLE:
    """The mask of an object that was predicted in several tiles.

    Where tiles overlap, their logits in original px are averaged, with weights that fall linearly
    towards the tile's edges, so that no edge of a tile shows.

    Args:
        parts: of the same object.
        image_size: S.
        size: (H, W) of the image.
    """
    top = min(window.top for window, _ in parts)
    bottom = max(window.top + window.height for window, _ in parts)
    # bands of columns, so that an object as large as the image needs little memory
    cuts = sorted({x for w, _ in parts for x in (w.left, w.left + w.width)})
    edges = []
    for left, right in zip(cuts[:-1], cuts[1:], strict=True):
        total = torch.zeros(bottom - top, right - left)
        weights = torch.zeros_like(total)
        for window, logits in parts:
            if window.left >= right or window.left + window.width <= left:
                continue
            tile_size = (window.height, window.width)
            input_size = resize_longest_side_size(tile_size, image_size)
            whole = logits_to_original(logits[None, None].cpu(), image_size, input_size, tile_size)[
                0, 0
            ]
            columns = slice(left - window.left, right - window.left)
            weight = _ramp(window.height)[:, None] * _ramp(window.width)[columns]
            rows = slice(window.top - top, window.top - top + window.height)
            total[rows] += whole[:, columns] * weight
            weights[rows] += weight
        mask = total > MASK_THRESHOLD * weights
        edges.append(edges_of_window(mask.numpy(), (top, left), size[0]))
    return rle_of_edges(np.concatenate(edges), size)


def _ramp(length: int) -> Tensor:
    """Distance (N,) of the pixels' centres to the nearer end."""
    places = torch.arange(length) + 0.5
    return torch.minimum(places, length - places)
