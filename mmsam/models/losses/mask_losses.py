"""Pixelwise losses on mask logits: pure functions, one value per mask.

``logits``, ``target`` and ``weight`` broadcast to (..., N): N cells of a mask, which may be low-res
cells, px or sampled points. The last axis is reduced, the leading ones remain. ``weight`` is the
share of each cell that lies inside the image, 0 in the padding, so padding counts nowhere. All else
is given by name, so that no number of objects ever lands in ``alpha``.
"""

import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, *, weight: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss, averaged over the weighted cells.

    Args:
        logits: (..., N) float.
        target: (..., N) float in 0..1, the foreground share of each cell.
        weight: (..., N) float in 0..1; a mask whose weights are all 0 has a loss of 0.
        alpha: weight of the foreground; the background has ``1 - alpha``.
        gamma: exponent that plays down the cells already right.

    Returns:
        (...) of the logits' dtype.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``sigmoid_focal_loss``.
    """
    prob = logits.sigmoid()
    miss = prob * (1 - target) + (1 - prob) * target
    balance = alpha * target + (1 - alpha) * (1 - target)
    return _weighted_mean(balance * miss**gamma * _cross_entropy(logits, target), weight)


def binary_cross_entropy_loss(logits: Tensor, target: Tensor, *, weight: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over the weighted cells; see ``sigmoid_focal_loss``."""
    return _weighted_mean(_cross_entropy(logits, target), weight)


def dice_loss(logits: Tensor, target: Tensor, *, weight: Tensor) -> Tensor:
    """One minus the Dice score; 1 is added to both of its parts, so an empty target is legal.

    Shapes and ranges as in ``sigmoid_focal_loss``.

    Source: training/loss_fns.py of sam2 @ 2b90b9f, ``dice_loss``.
    """
    prob = logits.sigmoid()
    overlap = (weight * prob * target).sum(-1)
    total = (weight * prob).sum(-1) + (weight * target).sum(-1)
    return 1 - (2 * overlap + 1) / (total + 1)


def sigmoid_mse_loss(logits: Tensor, target: Tensor, *, weight: Tensor) -> Tensor:
    """Squared error of the foreground probability, averaged over the weighted cells.

    A widespread tutorial trains with ``MSE(normalize(threshold(logits, 0, 0)), mask)``. On its
    (1, 1, H, W) logits, ``normalize`` works along the axis of length 1: every positive logit is
    divided by itself, the result is a constant 1, the rest is a constant 0, and no gradient is
    left. Here the sigmoid stands in place of both steps. Shapes as in ``sigmoid_focal_loss``.
    """
    return _weighted_mean((logits.sigmoid() - target).square(), weight)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction='none')


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    total = weight.sum(-1)
    # of no cell that counts, 0 / 1
    return (weight * values).sum(-1) / total.masked_fill(total == 0, 1)
