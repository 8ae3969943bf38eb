"""What the IoU head has to predict, and its error."""

from typing import Literal

import torch
from torch import Tensor

from mmsam.geometry import enlarged_masks, without_padding
from mmsam.pixel_counts import pixel_counts

IoULoss = Literal['mse', 'l1']

_OBJECTS_AT_ONCE = 16
"""Objects whose logits are enlarged together; bounds the memory of ``enlarged_iou``."""


def iou_head_loss(iou_predictions: Tensor, ious: Tensor, *, kind: IoULoss) -> Tensor:
    """Squared ('mse') or absolute ('l1') error (P,) of predicted IoUs (P, M), mean over M masks.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``iou_loss``.
    """
    error = iou_predictions - ious
    return (error.square() if kind == 'mse' else error.abs()).mean(-1)


def mask_iou(shown: Tensor, target: Tensor) -> Tensor:
    """IoU (...) float32 of masks (..., h, w), bool or uint8 of 0 and 1; 0 where both are empty.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``iou_loss``.
    """
    overlap = pixel_counts(shown & target)
    return overlap / (pixel_counts(shown) + pixel_counts(target) - overlap).clamp(min=1)


@torch.no_grad()
def enlarged_iou(low_res_logits: Tensor, target_masks: Tensor, *, input_sizes: Tensor) -> Tensor:
    """IoU (P, M) in padded px, without the padding, of the enlarged and thresholded logits.

    This is the IoU of what a prediction shows; on the low-res grid an object thinner than a cell
    would have none. Arguments as in ``compare``; without gradient.
    """
    chunks = zip(
        low_res_logits.split(_OBJECTS_AT_ONCE),
        target_masks.split(_OBJECTS_AT_ONCE),
        input_sizes.split(_OBJECTS_AT_ONCE),
        strict=True,
    )
    ious = [
        mask_iou(
            without_padding(enlarged_masks(logits), sizes),
            without_padding(masks.byte(), sizes)[:, None].bool(),
        )
        for logits, masks, sizes in chunks
    ]
    return torch.cat(ious)
