"""Pure functions on mask logits and target masks, one value per object.

``logits``, ``target`` and ``weight`` broadcast to (..., h, w); the last two axes are the grid, the
leading ones remain in the result. ``weight`` is the share of each cell that lies inside the image,
0 in the padding, so padding counts nowhere. With a weight of 1 everywhere the values are those of
SAM 2's training code.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor

from mmsam.geometry import MASK_THRESHOLD

Resolution = Literal['low_res', 'input']

LOW_RES_STRIDE = 4
"""Side of a low-res cell in padded px."""

_OBJECTS_AT_ONCE = 16
"""Objects whose logits are enlarged together; bounds the memory of ``enlarged_iou``."""


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, *, weight: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss per object, averaged over the weighted cells.

    Args:
        logits: (..., h, w) float.
        target: (..., h, w) float in 0..1, the foreground share of each cell.
        weight: (..., h, w) float in 0..1, not 0 everywhere.
        alpha: weight of the foreground; the background has ``1 - alpha``.
        gamma: exponent that plays down the cells already right.

    Returns:
        (...) of the logits' dtype.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``sigmoid_focal_loss``.
    """
    prob = logits.sigmoid()
    miss = prob * (1 - target) + (1 - prob) * target
    entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction='none')
    balance = alpha * target + (1 - alpha) * (1 - target)
    return _weighted_mean(balance * miss**gamma * entropy, weight)


def dice_loss(logits: Tensor, target: Tensor, *, weight: Tensor) -> Tensor:
    """One minus the Dice score per object; 1 is added to both parts, so an empty target is legal.

    Shapes and ranges as in ``sigmoid_focal_loss``.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``dice_loss``.
    """
    prob = logits.sigmoid()
    overlap = (weight * prob * target).sum((-2, -1))
    total = (weight * prob).sum((-2, -1)) + (weight * target).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


@torch.no_grad()
def mask_iou(logits: Tensor, target: Tensor, *, inside: Tensor) -> Tensor:
    """IoU per object of the thresholded logits with the target; 0 where both are empty.

    Counts whole cells, in bytes instead of floats: a training asks for it at the full side S.

    Args:
        logits: (..., h, w) float.
        target: (..., h, w) uint8 of 0 and 1.
        inside: (..., h, w) uint8 of 0 and 1: the cells that count.

    Returns:
        (...) float32, without gradient.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``iou_loss``.
    """
    foreground = logits.gt(MASK_THRESHOLD).view(torch.uint8) * inside
    target = target * inside
    overlap = _count(foreground * target)
    return overlap / (_count(foreground) + _count(target) - overlap).clamp(min=1)


def sigmoid_mse_loss(logits: Tensor, target: Tensor, *, weight: Tensor) -> Tensor:
    """Squared error per object between foreground probability and target, averaged over cells.

    Shapes and ranges as in ``sigmoid_focal_loss``.
    """
    return _weighted_mean((logits.sigmoid() - target).square(), weight)


def match_resolution(
    low_res_logits: Tensor, target_masks: Tensor, *, input_sizes: Tensor, resolution: Resolution
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and weights on one grid of g cells a side, without the padding.

    Args:
        low_res_logits: (P, M, S/4, S/4) float.
        target_masks: (P, S, S) of 0 and 1, padded px.
        input_sizes: (P, 2) int64, (h, w) input px.
        resolution: 'low_res': g = S/4, the target is the foreground share of a cell's unpadded px;
            'input': g = S, the logits are enlarged bilinearly, as for a prediction.

    Returns:
        logits (P, M, g, g), target (P, 1, g, g) and weight (P, 1, g, g), all float32. The weight
        is the unpadded share of each cell.
    """
    logits, side = low_res_logits.float(), target_masks.shape[-1]
    inside = _inside(input_sizes, side)
    target = (target_masks[:, None].byte() * inside).float()
    if resolution == 'input':
        return _enlarge(logits, side), target, inside.float()
    weight = _inside_share(input_sizes, side // LOW_RES_STRIDE)
    # a cell that is not all padding holds at least one px
    share = F.avg_pool2d(target, LOW_RES_STRIDE) / weight.clamp(min=LOW_RES_STRIDE**-2)
    return logits, share, weight


@torch.no_grad()
def enlarged_iou(low_res_logits: Tensor, target_masks: Tensor, *, input_sizes: Tensor) -> Tensor:
    """IoU (P, M) in padded px, without the padding, of the enlarged and thresholded logits.

    This is the IoU of what a prediction shows; on the low-res grid an object thinner than a cell
    would have none. Arguments as in ``match_resolution``; without gradient.
    """
    side = target_masks.shape[-1]
    chunks = zip(
        low_res_logits.split(_OBJECTS_AT_ONCE),
        target_masks.split(_OBJECTS_AT_ONCE),
        input_sizes.split(_OBJECTS_AT_ONCE),
        strict=True,
    )
    ious = [
        mask_iou(_enlarge(logits.float(), side), masks[:, None].byte(), inside=_inside(sizes, side))
        for logits, masks, sizes in chunks
    ]
    return torch.cat(ious)


def objects_per_rank(own_objects: int, *, device: torch.device) -> Tensor:
    """Mean number of objects over the ranks, a scalar, at least 1; every rank has to call it.

    A rank's sum over its objects divided by this, then averaged over ranks as distributed
    training does with gradients, is the mean over all objects.
    """
    objects = torch.tensor(float(own_objects), device=device)
    all_reduce(objects, op='mean')
    return objects.clamp(min=1)


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    return (weight * values).sum((-2, -1)) / weight.sum((-2, -1))


def _enlarge(logits: Tensor, side: int) -> Tensor:
    return F.interpolate(logits, (side, side), mode='bilinear', align_corners=False)


def _count(cells: Tensor) -> Tensor:
    """Sum (...) float32 of 0 and 1 over the last two axes; exact up to 2**24 cells."""
    return cells.float().sum((-2, -1))


def _inside(input_sizes: Tensor, side: int) -> Tensor:
    """Which padded px (P, 1, side, side) are inside the image, uint8 of 0 and 1."""
    inside = torch.arange(side, device=input_sizes.device) < input_sizes[..., None]
    rows, columns = inside.byte().unbind(1)
    return (rows[:, :, None] * columns[:, None, :])[:, None]


def _inside_share(input_sizes: Tensor, cells: int) -> Tensor:
    """Share (P, 1, cells, cells) float32 of each low-res cell that is inside the image."""
    starts = torch.arange(cells, device=input_sizes.device) * LOW_RES_STRIDE
    share = ((input_sizes[..., None] - starts) / LOW_RES_STRIDE).clamp(0, 1)
    return (share[:, 0, :, None] * share[:, 1, None, :])[:, None]
