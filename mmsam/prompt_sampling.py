"""Draws boxes, points and clicks from masks: the one place for training, validation and evaluation.

A training draws at random, validation and evaluation take what the masks themselves determine.
Points are (x, y) indices of pixels; the prompt encoder adds the half pixel to their centres. All
coordinates are input px, and padding is never clicked.

Clicks depend on what the model predicted, so no data loader can draw them. Their randomness is a
function of a seed that each object brings along and of the number of the step: the device does not
change it, and a resumed run draws the same clicks. Which steps bring a click, the objects that are
trained together decide (``correction_steps``).
"""

import enum
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from mmsam.geometry import without_padding
from mmsam.pixel_counts import row_counts


class PromptKind(enum.IntEnum):
    """What an object is prompted with first."""

    BOX = 0
    POINT = 1
    MASK = 2


FOREGROUND, BACKGROUND, NO_POINT = 1, 0, -1
"""Labels of points, as SAM's prompt encoder takes them."""

SEED_LIMIT = 2**62
"""Objects' seeds are whole numbers from 0 to below this."""

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number, of splitmix64
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685


class Click(NamedTuple):
    """A pixel (x, y) and its label: ``FOREGROUND``, ``BACKGROUND``, or ``NO_POINT``."""

    x: int
    y: int
    label: int


def uniforms(seeds: Tensor, stream: int) -> Tensor:
    """Random numbers (P,) float64 in [0, 1), a function of seed and stream alone.

    Equal on all devices.

    Source: the mixing function is that of splitmix64 (Steele, Lea and Flood, 2014).

    Args:
        seeds: (P,) int64.
        stream: tells apart the numbers that are drawn from the same seeds.
    """
    mixed = _mix(_mix(seeds) + seeds.new_tensor(stream + 1) * _GOLDEN)
    return _shift(mixed, 11).double() * 2.0**-53


def normals(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Standard normal deviates (P, count) float64, a function of seed and stream alone.

    Uses the streams ``stream * 2 * count`` up to those of the next ``stream``.
    """
    first = stream * 2 * count
    pairs = [uniforms(seeds, first + i) for i in range(2 * count)]
    radius = torch.stack([(-2 * (1 - u).log()).sqrt() for u in pairs[::2]], dim=1)
    return radius * torch.stack([(2 * torch.pi * u).cos() for u in pairs[1::2]], dim=1)


def jitter_boxes(
    boxes: Tensor, input_sizes: Tensor, noise: Tensor, *, ratio: float, max_pixels: float
) -> Tensor:
    """Boxes as inexact as a user or a detector draws them.

    Each coordinate moves by ``noise * ratio`` of the box's side, inwards as well as outwards, at
    most ``max_pixels``. The box then ends at the image's edges and keeps a side of at least 1 px.

    Source: appendix A of "Segment Anything" (Kirillov et al., 2023), with a ratio of 0.1 and at
    most 20 px at 1024 px.

    Args:
        boxes: (P, 4) float32 xyxy.
        input_sizes: (P, 2) or (1, 2) int64, (h, w) of each box's image.
        noise: (P, 4) float64, standard normal deviates.
        ratio: standard deviation as a share of the side, >= 0.
        max_pixels: greatest shift, >= 0, may be infinite.

    Returns:
        (P, 4) float32 xyxy.
    """
    corners = boxes.double()
    sides = (corners[:, 2:] - corners[:, :2]).repeat(1, 2)
    moved = corners + (noise * ratio * sides).clamp(-max_pixels, max_pixels)
    limits = input_sizes.flip(1).double()  # (w, h)
    low, high = (moved[:, part].clamp(min=0).minimum(limits) for part in _CORNERS)
    centre = ((low + high) / 2).clamp(min=0.5).minimum(limits - 0.5)
    thin = high - low < 1
    low, high = torch.where(thin, centre - 0.5, low), torch.where(thin, centre + 0.5, high)
    return torch.cat([low, high], dim=1).float()


_CORNERS = (slice(0, 2), slice(2, 4))


def pick_pixels(masks: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """One pixel of each mask, every one of its pixels being equally likely.

    Args:
        masks: (P, h, w) bool or uint8 of 0 and 1.
        numbers: (P,) float64, uniform in [0, 1).

    Returns:
        Pixels (P, 2) int64, (x, y), (0, 0) of a mask without one; and which masks have one (P,).
    """
    in_row = row_counts(masks)
    up_to_row = in_row.cumsum(dim=1)
    total = up_to_row[:, -1]
    rank = (numbers * total).long().minimum((total - 1).clamp(min=0))
    y = (up_to_row <= rank[:, None]).sum(dim=1) * (total > 0)
    objects = torch.arange(len(masks), device=masks.device)
    rank = rank - (up_to_row - in_row)[objects, y]
    x = (masks[objects, y].cumsum(dim=1, dtype=torch.int64) <= rank[:, None]).sum(dim=1)
    return torch.stack([x * (total > 0), y], dim=1), total > 0


def random_error_clicks(
    predicted: Tensor, target: Tensor, input_sizes: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """A click for each object on a random pixel that its prediction has wrong.

    Where all is right, the click falls on the background, and where there is no background, there
    is no click.

    Source: sam2/modeling/sam2_utils.py @ 2b90b9f, ``sample_random_points_from_errors``; padding is
    left out here.

    Args:
        predicted: (P, S, S) bool, padded px.
        target: (P, S, S) bool or uint8, padded px.
        input_sizes: (P, 2) int64, (h, w) of each object's image.
        numbers: (P,) float64, uniform in [0, 1).

    Returns:
        Points (P, 1, 2) float32, labels (P, 1) int64: 1 where the target is, 0 beside it, -1 where
        there is no click.
    """
    target = target.bool()
    pixels, found = pick_pixels(without_padding(predicted != target, input_sizes), numbers)
    if not bool(found.all()):
        right = ~found
        background = without_padding(~target[right], input_sizes[right])
        pixels[right], found[right] = pick_pixels(background, numbers[right])
    objects = torch.arange(len(target), device=target.device)
    labels = torch.where(found, target[objects, pixels[:, 1], pixels[:, 0]].long(), NO_POINT)
    return pixels[:, None].float(), labels[:, None]


def correction_steps(seed: int, *, num_clicks: int, num_repeats: int) -> list[bool]:
    """Whether each step after the first prompt brings a new click, or only the previous logits.

    The last step is a repetition, if there is one; the others stand at random places. Objects that
    are trained together share them: ``seed`` is that of the first.

    Source: appendix A of "Segment Anything": eight clicks and two repetitions, one of them last.
    """
    steps = [True] * num_clicks
    for repeat in range(num_repeats - 1):
        place = uniforms(torch.tensor([seed]), _REPEAT_STREAM + repeat) * (len(steps) + 1)
        steps.insert(int(place), False)
    return steps + [False] * min(num_repeats, 1)


_REPEAT_STREAM = 1 << 32  # beyond the streams of clicks


def centre_click(target: np.ndarray, predicted: np.ndarray | None = None) -> Click:
    """The click that a mask, or the error of a prediction, determines.

    It falls on the pixel farthest from the boundary, of the object or, with a prediction, of what
    is missed or added, whichever reaches farther; the image's edge is boundary, too. The first in
    rows among equals.

    Args:
        target: (h, w) bool or uint8 of 0 and 1.
        predicted: (h, w) bool; None for the first click.

    Returns:
        The click; its label is ``NO_POINT`` where there is nothing to click on.
    """
    truth = target.astype(bool)
    missed = truth if predicted is None else truth & ~predicted
    (x, y), distance = _innermost_pixel(missed)
    if predicted is not None:
        other, reach = _innermost_pixel(predicted & ~truth)
        if reach > distance:
            return Click(*other, BACKGROUND)
    return Click(x, y, FOREGROUND if distance > 0 else NO_POINT)


def _innermost_pixel(mask: np.ndarray) -> tuple[tuple[int, int], float]:
    """Pixel (x, y) of the greatest distance to what is no part of the mask, and the distance."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return (0, 0), 0.0
    part = mask[top : top + height, left : left + width].astype(np.uint8)
    distance = cv2.distanceTransform(np.pad(part, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return (left + int(x) - 1, top + int(y) - 1), float(distance[y, x])


def _mix(values: Tensor) -> Tensor:
    """Bits of (P,) int64 that depend on all bits of ``values``; sums and products wrap round."""
    values = (values ^ _shift(values, 30)) * _FIRST
    values = (values ^ _shift(values, 27)) * _SECOND
    return values ^ _shift(values, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    """``values`` shifted right, zeros coming in from the left."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
