"""What the IoU head has to predict, and its error."""

from typing import Literal

import torch
from torch import Tensor

from mmsam.geometry import MASK_THRESHOLD

from .compared_cells import enlarge, pixels_inside

IoULoss = Literal['mse', 'l1']

_OBJECTS_AT_ONCE = 16
"""Objects whose logits are enlarged together; bounds the memory of ``enlarged_iou``."""


def iou_head_loss(iou_predictions: Tensor, ious: Tensor, *, kind: IoULoss) -> Tensor:
    """Squared ('mse') or absolute ('l1') error (P,) of predicted IoUs (P, M), mean over M masks.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``iou_loss``.
    """
    error = iou_predictions - ious
    return (error.square() if kind == 'mse' else error.abs()).mean(-1)


@torch.no_grad()
def mask_iou(logits: Tensor, target: Tensor, *, inside: Tensor) -> Tensor:
    """IoU per mask of the thresholded logits with the target; 0 where both are empty.

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


@torch.no_grad()
def enlarged_iou(low_res_logits: Tensor, target_masks: Tensor, *, input_sizes: Tensor) -> Tensor:
    """IoU (P, M) in padded px, without the padding, of the enlarged and thresholded logits.

    This is the IoU of what a prediction shows; on the low-res grid an object thinner than a cell
    would have none. Arguments as in ``compare``; without gradient.
    """
    side = target_masks.shape[-1]
    chunks = zip(
        low_res_logits.split(_OBJECTS_AT_ONCE),
        target_masks.split(_OBJECTS_AT_ONCE),
        input_sizes.split(_OBJECTS_AT_ONCE),
        strict=True,
    )
    ious = [
        mask_iou(
            enlarge(logits.float(), side), masks[:, None].byte(), inside=pixels_inside(sizes, side)
        )
        for logits, masks, sizes in chunks
    ]
    return torch.cat(ious)


def _count(cells: Tensor) -> Tensor:
    """Sum (...) float32 of 0 and 1 over the last two axes; exact up to 2**24 cells."""
    return cells.float().sum((-2, -1))
