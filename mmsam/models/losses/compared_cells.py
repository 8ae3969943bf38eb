"""Where logits and true masks are compared: on low-res cells, at sampled points, or at every px."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsam.geometry import LOW_RES_STRIDE, without_padding
from mmsam.pixel_counts import cell_counts

from .uncertain_points import logits_at, uncertain_points

Resolution = Literal['low_res', 'points', 'input']


@dataclass(frozen=True)
class ComparedCells:
    """N cells of each of P objects, those of an object shared by its M masks.

    Attributes:
        logits: (P, M, N) float32.
        target: (P, 1, N) float32 in 0..1, the foreground share of the cell.
        weight: (P or 1, 1, N) float32 in 0..1, the share of the cell inside the image.
        low_res_index: (P or 1, N) int64, which low-res cell, row by row, the cell lies in.
    """

    logits: Tensor
    target: Tensor
    weight: Tensor
    low_res_index: Tensor

    def of_low_res(self, grid: Tensor) -> Tensor:
        """Values (P, 1, N) at the cells of a low-res grid (P, 1, S/4, S/4)."""
        return grid.flatten(2).gather(-1, self.low_res_index[:, None].expand_as(self.target))


def compare(
    low_res_logits: Tensor,
    target_masks: Tensor,
    *,
    input_sizes: Tensor,
    resolution: Resolution,
) -> ComparedCells:
    """Logits and targets at the cells of a resolution, without the padding.

    - 'low_res': the decoder's own grid; the target is the foreground share of a cell's unpadded px.
    - 'points': 12 544 px of each image, most of them where the logits are uncertain
      (``uncertain_points``), drawn with the generator of the device.
    - 'input': all S x S px; the logits are enlarged bilinearly, as for a prediction.

    Args:
        low_res_logits: (P, M, S/4, S/4) float.
        target_masks: (P, S, S) of 0 and 1, padded px.
        input_sizes: (P, 2) int64, (h, w) input px.
        resolution: see above.
    """
    return _COMPARISONS[resolution](low_res_logits.float(), target_masks, input_sizes)


def foreground_share(target_masks: Tensor, input_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground share of each low-res cell's unpadded px, and the unpadded share of each cell.

    Args:
        target_masks: (P, S, S) of 0 and 1, padded px.
        input_sizes: (P, 2) int64, (h, w) input px.

    Returns:
        Two (P, 1, S/4, S/4) float32; the first is 0 where the second is.
    """
    side = target_masks.shape[-1]
    weight = _share_inside(input_sizes, side // LOW_RES_STRIDE)
    counts = cell_counts(without_padding(target_masks.byte(), input_sizes))[:, None]
    # a cell that is not all padding holds at least one px
    share = counts / LOW_RES_STRIDE**2 / weight.clamp(min=LOW_RES_STRIDE**-2)
    return share, weight


def _share_inside(input_sizes: Tensor, cells: int) -> Tensor:
    """Share (P, 1, cells, cells) float32 of each low-res cell that is inside the image."""
    starts = torch.arange(cells, device=input_sizes.device) * LOW_RES_STRIDE
    share = ((input_sizes[..., None] - starts) / LOW_RES_STRIDE).clamp(0, 1)
    return (share[:, 0, :, None] * share[:, 1, None, :])[:, None]


def _on_low_res(logits: Tensor, target_masks: Tensor, input_sizes: Tensor) -> ComparedCells:
    share, weight = foreground_share(target_masks, input_sizes)
    index = torch.arange(share.shape[-2] * share.shape[-1], device=logits.device)
    return ComparedCells(logits.flatten(2), share.flatten(2), weight.flatten(2), index[None])


def _at_points(logits: Tensor, target_masks: Tensor, input_sizes: Tensor) -> ComparedCells:
    side = target_masks.shape[-1]
    points = uncertain_points(logits, input_sizes, side)
    x, y = points.unbind(-1)
    target = target_masks.flatten(1).gather(1, y * side + x)
    index = y // LOW_RES_STRIDE * (side // LOW_RES_STRIDE) + x // LOW_RES_STRIDE
    weight = logits.new_ones(1, 1, points.shape[1])
    return ComparedCells(logits_at(logits, points, side), target[:, None].float(), weight, index)


def _at_every_pixel(logits: Tensor, target_masks: Tensor, input_sizes: Tensor) -> ComparedCells:
    side = target_masks.shape[-1]
    cell = torch.arange(side, device=logits.device) // LOW_RES_STRIDE
    index = cell[:, None] * (side // LOW_RES_STRIDE) + cell
    enlarged = F.interpolate(logits, (side, side), mode='bilinear', align_corners=False)
    inside = without_padding(torch.ones_like(target_masks), input_sizes)
    return ComparedCells(
        enlarged.flatten(2),
        target_masks[:, None].flatten(2).float(),
        inside[:, None].flatten(2).float(),
        index.flatten()[None],
    )


_COMPARISONS: dict[Resolution, Callable[[Tensor, Tensor, Tensor], ComparedCells]] = {
    'low_res': _on_low_res,
    'points': _at_points,
    'input': _at_every_pixel,
}
