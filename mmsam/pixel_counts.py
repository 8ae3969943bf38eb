"""Counts the pixels of masks, several in one machine word.

A training counts pixels of (P, S, S) in every step. torch adds bytes one by one, or copies them
into numbers of four or eight bytes first; here a word of eight or four pixels is added at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_CELL = 4
"""Side of a low-res cell, px."""

_WORD = 8
"""Pixels in a word of 64 bits."""

_MOST_WORDS = 255
"""So many words can be added before the count of a byte runs over."""


def row_counts(masks: Tensor) -> Tensor:
    """The number of pixels in each row.

    Args:
        masks: (..., h, w) bool or uint8 of 0 and 1.

    Returns:
        (..., h) int64.
    """
    masks = masks.view(torch.uint8)
    missing = -masks.shape[-1] % _WORD
    if missing or not masks.is_contiguous():
        masks = F.pad(masks.contiguous(), (0, missing))
    words = masks.view(torch.int64).split(_MOST_WORDS, dim=-1)
    counts = [part.sum(-1, keepdim=True).view(torch.uint8).sum(-1) for part in words]
    return torch.stack(counts).sum(0) if len(counts) > 1 else counts[0]


def pixel_counts(masks: Tensor) -> Tensor:
    """The number of pixels of each mask: (..., h, w) bool or uint8 of 0 and 1 to (...) int64."""
    return row_counts(masks).sum(-1)


def cell_counts(masks: Tensor) -> Tensor:
    """The number of pixels in each low-res cell of 4x4 px.

    Args:
        masks: (P, S, S) bool or uint8 of 0 and 1, padded px.

    Returns:
        (P, S/4, S/4) int32.
    """
    cells = masks.shape[-1] // _CELL
    rows = masks.contiguous().view(torch.uint8).view(-1, cells, _CELL, _CELL * cells)
    words = rows.view(torch.int32).sum(2, dtype=torch.int32)  # each of 4 bytes is 4 px at most
    return (words * 0x01010101) >> 24  # the product's highest byte is the sum of all four
