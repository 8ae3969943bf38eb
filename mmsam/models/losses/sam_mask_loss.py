"""The loss module a ``MaskLossHook`` puts into a segmentor's slot ``mask_loss``.

A module for this slot has neither parameters nor buffers, and its call takes by name, for the P
prompts of a batch:

- ``low_res_logits`` (P, M, S/4, S/4) float, ``iou_predictions`` (P, M) float;
- ``target_masks`` (P, S, S) uint8 of 0 and 1, padded px;
- ``input_sizes`` (P, 2) int64, (h, w) in input px of each prompt's image.

It returns one value per prompt, (P,) float32, under each name: those with 'loss' in their name are
trained, as everywhere in mmengine, the others are only logged. The segmentor averages them over the
prompts of all ranks. P = 0 gives (0,) that still hang on the model's graph.
"""

from typing import get_args

import torch
from torch import Tensor, nn

from mmsam.errors import ConfigError
from mmsam.options import check_choice
from mmsam.registry import MODELS

from .boundary_loss import boundary_band, boundary_loss
from .compared_cells import Resolution, compare, foreground_share
from .iou_head import IoULoss, enlarged_iou, iou_head_loss
from .lovasz_loss import lovasz_hinge_loss
from .mask_losses import (
    binary_cross_entropy_loss,
    dice_loss,
    sigmoid_focal_loss,
    sigmoid_mse_loss,
)

_PIXELWISE = {
    'focal': sigmoid_focal_loss,
    'dice': dice_loss,
    'bce': binary_cross_entropy_loss,
    'mse': sigmoid_mse_loss,
    'lovasz': lovasz_hinge_loss,
}


@MODELS.register_module()
class SAMMaskLoss(nn.Module):
    """A weighted sum of losses on the masks, and the error of the IoU head.

    Of M > 1 masks only the one with the lowest sum is trained, for each prompt by itself. The IoU
    head learns the IoU of all M thresholded masks in padded px, the padding left out. Without it
    (``iou_weight=0``) the head keeps its estimates while the masks move away from them, and
    whatever filters by them, such as automatic mask generation, suffers.

    Args:
        resolution: where logits and masks are compared. 'low_res': on the decoder's own grid, with
            the foreground share of each cell of 4x4 px. 'points': at 12 544 px of each image, most
            of them uncertain. 'input': at all S x S px, which takes 16 times the memory of
            'low_res'. See ``compare``.
        focal_weight, dice_weight, bce_weight, mse_weight: weights of the pixelwise losses; 0 leaves
            a loss out.
        lovasz_weight: weight of the Lovasz hinge, a surrogate of the IoU.
        boundary_weight: weight of the cross-entropy along the outline.
        iou_weight: weight of ``loss_iou``.
        iou_loss: 'mse' or 'l1', the error of the IoU head.

    Raises:
        ConfigError: an unknown ``resolution`` or ``iou_loss``, a negative weight, or masks that
            nothing trains.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``MultiStepMultiMasksAndIous`` with
    ``supervise_all_iou``; padding, soft targets and the IoU in padded px are our own.
    """

    def __init__(
        self,
        *,
        resolution: Resolution = 'low_res',
        focal_weight: float = 20.0,
        dice_weight: float = 1.0,
        bce_weight: float = 0.0,
        mse_weight: float = 0.0,
        lovasz_weight: float = 0.0,
        boundary_weight: float = 0.0,
        iou_weight: float = 1.0,
        iou_loss: IoULoss = 'mse',
    ) -> None:
        super().__init__()
        check_choice('resolution of SAMMaskLoss', resolution, get_args(Resolution))
        check_choice('iou_loss of SAMMaskLoss', iou_loss, get_args(IoULoss))
        self.resolution = resolution
        self.iou_loss = iou_loss
        self.iou_weight = iou_weight
        weights = dict(
            focal=focal_weight,
            dice=dice_weight,
            bce=bce_weight,
            mse=mse_weight,
            lovasz=lovasz_weight,
            boundary=boundary_weight,
        )
        if min(*weights.values(), iou_weight) < 0 or not any(weights.values()):
            raise ConfigError(
                'SAMMaskLoss expects no negative weight and one above 0 for the masks, '
                f'got {weights | dict(iou=iou_weight)}.'
            )
        self.mask_weights = {name: weight for name, weight in weights.items() if weight}

    def extra_repr(self) -> str:
        weights = ''.join(f', {name}_weight={w}' for name, w in self.mask_weights.items())
        return (
            f'resolution={self.resolution!r}{weights}, '
            f'iou_weight={self.iou_weight}, iou_loss={self.iou_loss!r}'
        )

    def forward(
        self,
        *,
        low_res_logits: Tensor,
        iou_predictions: Tensor,
        target_masks: Tensor,
        input_sizes: Tensor,
    ) -> dict[str, Tensor]:
        """Return (P,) each: the losses of the masks, ``loss_iou`` and ``train_iou``.

        ``loss_iou`` is there at a weight of 0 too: it keeps the IoU head in the graph, for which
        distributed training waits. ``train_iou``, without gradient, is the IoU of the trained mask.
        """
        masks = self._mask_losses(low_res_logits, target_masks, input_sizes)
        ious = enlarged_iou(low_res_logits, target_masks, input_sizes=input_sizes)
        error = iou_head_loss(iou_predictions, ious, kind=self.iou_loss)
        trained = torch.stack(list(masks.values())).sum(0).argmin(dim=1, keepdim=True)
        return {
            **{name: values.gather(1, trained)[:, 0] for name, values in masks.items()},
            'loss_iou': self.iou_weight * error,
            'train_iou': ious.gather(1, trained)[:, 0],
        }

    def _mask_losses(
        self, low_res_logits: Tensor, target_masks: Tensor, input_sizes: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses (P, M) of all masks."""
        cells = compare(
            low_res_logits, target_masks, input_sizes=input_sizes, resolution=self.resolution
        )
        losses = {}
        for name, weight in self.mask_weights.items():
            if name == 'boundary':
                share, inside = foreground_share(target_masks, input_sizes)
                band = cells.of_low_res(boundary_band(share, weight=inside))
                loss = boundary_loss(cells.logits, cells.target, weight=cells.weight, band=band)
            else:
                loss = _PIXELWISE[name](cells.logits, cells.target, weight=cells.weight)
            losses[f'loss_{name}'] = weight * loss
        return losses
