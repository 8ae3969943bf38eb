"""Losses on SAM's mask logits: pure functions, and the modules a ``MaskLossHook`` installs."""

from .mask_losses import (
    dice_loss,
    enlarged_iou,
    mask_iou,
    match_resolution,
    objects_per_rank,
    sigmoid_focal_loss,
    sigmoid_mse_loss,
)
from .sam_mask_loss import MaskMSELoss, SAMMaskLoss

__all__ = [
    'MaskMSELoss',
    'SAMMaskLoss',
    'dice_loss',
    'enlarged_iou',
    'mask_iou',
    'match_resolution',
    'objects_per_rank',
    'sigmoid_focal_loss',
    'sigmoid_mse_loss',
]
