"""The loss modules a ``MaskLossHook`` puts into a segmentor's slot ``mask_loss``.

A module here has neither parameters nor buffers, and its call takes, for the P prompts of a batch:

- ``low_res_logits`` (P, M, S/4, S/4) float, ``iou_predictions`` (P, M) float;
- ``target_masks`` (P, S, S) uint8 of 0 and 1, padded px;
- ``input_sizes`` (P, 2) int64, (h, w) in input px of each prompt's image.

It returns scalars: those whose name starts with ``loss_`` are added up and trained, the others are
only logged. They are sums over the prompts divided by the mean number of prompts per rank; P = 0
gives zeros that still reach the model's graph. All is computed in float32. With M > 1 only the
mask with the lowest loss is trained, for each prompt by itself.
"""

from typing import get_args

from torch import Tensor, nn

from mmsam.errors import ConfigError
from mmsam.registry import MODELS

from .mask_losses import (
    Resolution,
    dice_loss,
    enlarged_iou,
    match_resolution,
    objects_per_rank,
    sigmoid_focal_loss,
    sigmoid_mse_loss,
)


@MODELS.register_module()
class SAMMaskLoss(nn.Module):
    """Focal and Dice loss on the masks, and squared error of the IoU head.

    The IoU head learns the IoU of all M thresholded masks in padded px, the padding left out.

    Args:
        resolution: 'low_res' compares on the decoder's own grid with the foreground share of each
            cell of 4x4 px: 16 times less memory. 'input' compares with the 0/1 mask at S x S.
        focal_weight: weight of ``loss_focal``.
        dice_weight: weight of ``loss_dice``.
        iou_weight: weight of ``loss_iou``.

    Raises:
        ConfigError: ``resolution`` is neither of the two.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``MultiStepMultiMasksAndIous`` with
    ``supervise_all_iou``; padding, soft targets and the IoU in padded px are our own.
    """

    def __init__(
        self,
        *,
        resolution: Resolution = 'low_res',
        focal_weight: float = 20.0,
        dice_weight: float = 1.0,
        iou_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.resolution = _checked(resolution)
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight
        self.iou_weight = iou_weight

    def extra_repr(self) -> str:
        return (
            f'resolution={self.resolution!r}, focal_weight={self.focal_weight}, '
            f'dice_weight={self.dice_weight}, iou_weight={self.iou_weight}'
        )

    def forward(
        self,
        *,
        low_res_logits: Tensor,
        iou_predictions: Tensor,
        target_masks: Tensor,
        input_sizes: Tensor,
    ) -> dict[str, Tensor]:
        """Return ``loss_focal``, ``loss_dice``, ``loss_iou``, and ``train_iou`` if P > 0.

        ``train_iou`` is the mean IoU of the trained masks of this rank.
        """
        logits, target, weight = match_resolution(
            low_res_logits, target_masks, input_sizes=input_sizes, resolution=self.resolution
        )
        focal = self.focal_weight * sigmoid_focal_loss(logits, target, weight=weight)
        dice = self.dice_weight * dice_loss(logits, target, weight=weight)
        trained = (focal + dice).argmin(dim=1, keepdim=True)
        iou = enlarged_iou(low_res_logits, target_masks, input_sizes=input_sizes)
        iou_error = (iou_predictions.float() - iou).square().mean(dim=1)
        objects = objects_per_rank(len(logits), device=logits.device)
        losses = {
            'loss_focal': focal.gather(1, trained).sum() / objects,
            'loss_dice': dice.gather(1, trained).sum() / objects,
            'loss_iou': self.iou_weight * iou_error.sum() / objects,
        }
        if len(logits):
            losses['train_iou'] = iou.gather(1, trained).mean()
        return losses


@MODELS.register_module()
class MaskMSELoss(nn.Module):
    """Squared error between foreground probability and mask, for comparison with a known recipe.

    A widespread tutorial trains with ``MSE(normalize(threshold(logits, 0, 0)), mask)``. On its
    (1, 1, H, W) logits, ``normalize`` works along the axis of length 1: every positive logit is
    divided by itself, the result is a constant 1, the rest is a constant 0, and no gradient is
    left. Here the sigmoid stands in place of both steps.

    The IoU head is not supervised: it keeps its estimates while the masks move away from them, and
    whatever filters by them, such as automatic mask generation, suffers. ``SAMMaskLoss`` trains it.

    Args:
        resolution: as in ``SAMMaskLoss``.

    Raises:
        ConfigError: ``resolution`` is neither 'low_res' nor 'input'.
    """

    def __init__(self, *, resolution: Resolution = 'low_res') -> None:
        super().__init__()
        self.resolution = _checked(resolution)

    def extra_repr(self) -> str:
        return f'resolution={self.resolution!r}'

    def forward(
        self,
        *,
        low_res_logits: Tensor,
        iou_predictions: Tensor,
        target_masks: Tensor,
        input_sizes: Tensor,
    ) -> dict[str, Tensor]:
        """Return ``loss_mse``, and ``train_iou`` as in ``SAMMaskLoss``."""
        logits, target, weight = match_resolution(
            low_res_logits, target_masks, input_sizes=input_sizes, resolution=self.resolution
        )
        error = sigmoid_mse_loss(logits, target, weight=weight)
        trained = error.argmin(dim=1, keepdim=True)
        objects = objects_per_rank(len(logits), device=logits.device)
        # the IoU head stays in the graph with a gradient of 0: distributed training waits for it
        losses = {'loss_mse': error.gather(1, trained).sum() / objects + 0 * iou_predictions.sum()}
        if len(logits):
            iou = enlarged_iou(low_res_logits, target_masks, input_sizes=input_sizes)
            losses['train_iou'] = iou.gather(1, trained).mean()
        return losses


def _checked(resolution: Resolution) -> Resolution:
    if resolution not in get_args(Resolution):
        raise ConfigError(
            f'resolution of a mask loss is one of {", ".join(get_args(Resolution))}, '
            f'got {resolution!r}.'
        )
    return resolution
