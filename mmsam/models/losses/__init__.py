"""Losses on SAM's mask logits: pure functions, and the module a ``MaskLossHook`` installs."""

from .boundary_loss import boundary_band, boundary_loss
from .compared_cells import ComparedCells, compare, foreground_share
from .iou_head import enlarged_iou, iou_head_loss, mask_iou
from .lovasz_loss import lovasz_hinge_loss
from .mask_losses import (
    binary_cross_entropy_loss,
    dice_loss,
    sigmoid_focal_loss,
    sigmoid_mse_loss,
)
from .sam_mask_loss import SAMMaskLoss

__all__ = [
    'ComparedCells',
    'SAMMaskLoss',
    'binary_cross_entropy_loss',
    'boundary_band',
    'boundary_loss',
    'compare',
    'dice_loss',
    'enlarged_iou',
    'foreground_share',
    'iou_head_loss',
    'lovasz_hinge_loss',
    'mask_iou',
    'sigmoid_focal_loss',
    'sigmoid_mse_loss',
]
