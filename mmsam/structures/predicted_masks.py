"""From the mask decoder's logits to masks in original px."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsam.geometry import MASK_THRESHOLD, Size

from .rle import RLE, edges_of_window, rle_of_edges

_BAND_PIXELS = 2**22
"""Pixels of an object in original px that stand in memory at the same time."""


def rles_of_logits(
    low_res_logits: Tensor, image_size: int, input_size: Size, original_size: Size
) -> list[RLE]:
    """The masks of ``encode_masks(logits_to_original(...) > MASK_THRESHOLD)``, for large images.

    Both steps of ``logits_to_original`` mix neighbours only. So each mask is computed only around
    the logits that are above the threshold, and a large one band by band: time and memory follow
    the objects' sizes, not the image's.

    Args:
        low_res_logits: (..., S/4, S/4); all but the last two dimensions are flattened, in order.
        image_size: S.
        input_size: (h, w) in input px.
        original_size: (H, W) in original px.
    """
    logits = low_res_logits.flatten(0, -3).float()
    rows = _Neighbours(input_size[0], original_size[0], logits.device)
    columns = _Neighbours(input_size[1], original_size[1], logits.device)
    positive = logits > MASK_THRESHOLD
    spans_y, spans_x = _spans(positive.any(dim=2)), _spans(positive.any(dim=1))
    rles = []
    for low_res, span_y, span_x in zip(logits, spans_y, spans_x, strict=True):
        edges = []
        if span_y is not None and span_x is not None:
            part, corner = _enlarge(low_res, span_y, span_x, image_size)
            part = part[: max(0, input_size[0] - corner[0]), : max(0, input_size[1] - corner[1])]
            edges = _edges(part, corner, rows, columns, original_size[0])
        rles.append(rle_of_edges(np.concatenate(edges or [np.zeros(0, int)]), original_size))
    return rles


class _Neighbours:
    """Between which two input pixels each original pixel lies, along one side.

    ``low`` and ``high`` (N,) int64 are the two, ``weight`` (N,) float32 is the share of the second.
    As torch's bilinear resize computes them, in float32 with one rounding (fused multiply-add).
    """

    def __init__(self, from_length: int, to_length: int, device: torch.device) -> None:
        scale = np.float32(from_length) / np.float32(to_length)
        exact = (np.arange(to_length) + 0.5) * np.float64(scale) - 0.5
        place = np.maximum(exact.astype(np.float32), 0)
        low = np.minimum(place.astype(np.int64), from_length - 1)
        self.low = low
        self.low_on_device = torch.from_numpy(low).to(device)
        self.high_on_device = torch.from_numpy(np.minimum(low + 1, from_length - 1)).to(device)
        self.weight = torch.from_numpy(place - low.astype(np.float32)).to(device)

    def reached_from(self, first: int, last: int) -> tuple[int, int]:
        """Range of the original pixels that have one of the input pixels first..last beside."""
        start, end = np.searchsorted(self.low, [first - 1, last + 1])
        return int(start), int(end)


def _spans(occupied: Tensor) -> list[tuple[int, int] | None]:
    """First and last True of each row of (K, N); None for a row without."""
    spans: list[tuple[int, int] | None] = []
    for row in occupied.cpu().numpy():
        where = np.flatnonzero(row)
        spans.append((int(where[0]), int(where[-1])) if len(where) else None)
    return spans


def _enlarge(
    low_res: Tensor, span_y: tuple[int, int], span_x: tuple[int, int], image_size: int
) -> tuple[Tensor, tuple[int, int]]:
    """Logits in padded px of the part that can be positive, and its corner (y, x).

    Two more cells on each side keep the cut's own edge, which has no neighbour, away from it.
    """
    factor = image_size // low_res.shape[-1]
    top, left = max(0, span_y[0] - 2), max(0, span_x[0] - 2)
    part = low_res[top : span_y[1] + 3, left : span_x[1] + 3]
    size = (part.shape[0] * factor, part.shape[1] * factor)
    enlarged = F.interpolate(part[None, None], size, mode='bilinear', align_corners=False)
    return enlarged[0, 0], (top * factor, left * factor)


def _edges(
    part: Tensor, corner: tuple[int, int], rows: _Neighbours, columns: _Neighbours, height: int
) -> list[np.ndarray]:
    """Edges of the mask in original px, see :func:`rle_of_edges`, band by band of columns."""
    positive = part > MASK_THRESHOLD
    (span_y,), (span_x,) = _spans(positive.any(dim=1)[None]), _spans(positive.any(dim=0)[None])
    if span_y is None or span_x is None:
        return []
    top, bottom = rows.reached_from(*(corner[0] + y for y in span_y))
    left, right = columns.reached_from(*(corner[1] + x for x in span_x))
    width = max(1, _BAND_PIXELS // max(1, bottom - top))
    edges = []
    for start in range(left, right, width):
        end = min(right, start + width)
        mixed = _mix(part.T, columns, start, end, corner[1])
        band = _mix(mixed.T, rows, top, bottom, corner[0]) > MASK_THRESHOLD
        edges.append(edges_of_window(band.cpu().numpy(), (top, start), height))
    return edges


def _mix(pixels: Tensor, neighbours: _Neighbours, start: int, end: int, offset: int) -> Tensor:
    """Rows start..end in original px from rows of input px, the first of which is ``offset``."""
    low = pixels[neighbours.low_on_device[start:end] - offset]
    high = pixels[neighbours.high_on_device[start:end] - offset]
    weight = neighbours.weight[start:end, None]
    return low * (1 - weight) + high * weight
