"""Boundary-aware term: cross-entropy in a band along the outline of the true mask."""

import torch.nn.functional as F
from torch import Tensor

from .mask_losses import binary_cross_entropy_loss


def boundary_loss(logits: Tensor, target: Tensor, *, weight: Tensor, band: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over the weighted cells of the band.

    Its size does not depend on the object's: where a mean over the whole image would be ruled by
    the background, this is ruled by the cells that decide where the object ends.

    Args:
        logits, target, weight: (..., N), as in ``sigmoid_focal_loss``.
        band: (..., N), 1 in the cells that count, else 0.

    Returns:
        (...) of the logits' dtype; 0 where the band is empty.
    """
    return binary_cross_entropy_loss(logits, target, weight=weight * band)


def boundary_band(target: Tensor, *, weight: Tensor) -> Tensor:
    """The low-res cells whose 3x3 neighbourhood is neither all foreground nor all background.

    The border of the image is no outline: an object that is cut there has no band along it.

    Args:
        target: (P, 1, g, g) float in 0..1, the foreground share of each cell.
        weight: (P, 1, g, g) float in 0..1, 0 in the padding.

    Returns:
        (P, 1, g, g) float of 0 and 1.
    """
    padding = weight == 0
    most = F.max_pool2d(target.masked_fill(padding, 0), 3, stride=1, padding=1)
    least = -F.max_pool2d(-target.masked_fill(padding, 1), 3, stride=1, padding=1)
    return ((most > 0) & (least < 1) & ~padding).to(target.dtype)
