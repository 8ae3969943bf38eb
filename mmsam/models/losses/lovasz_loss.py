"""Lovasz hinge: a convex surrogate of one minus the IoU of a whole mask."""

import torch
from torch import Tensor

_UNITS = 2**16
"""Of a cell. Sums of integers are exact, and on a GPU they are deterministic."""


def lovasz_hinge_loss(logits: Tensor, target: Tensor, *, weight: Tensor) -> Tensor:
    """Lovasz extension of the Jaccard loss, at the hinge errors ``1 -+ logit``.

    A cell that is foreground in part counts as that much foreground and as much background as is
    left, each with the cell's logit; so an object smaller than a cell does not vanish. For targets
    of 0 and 1 and weights of 1 it is the published loss; there, logits of -1 and 1 give twice
    ``1 - IoU``, and correct logits beyond the margin of 1 give 0. With an empty target it is the
    largest hinge error.

    Args:
        logits: (..., N) float.
        target: (..., N) float in 0..1, the foreground share of each cell.
        weight: (..., N) float in 0..1, the share of each cell that counts.

    Returns:
        (...) of the logits' dtype.

    Source: Berman et al., The Lovasz-Softmax loss (CVPR 2018), equation 11 and algorithm 1.
    """
    target, weight = target.expand_as(logits), weight.expand_as(logits)
    errors, order = torch.cat([1 - logits, 1 + logits], -1).sort(dim=-1, descending=True)
    share = weight * target
    mass = torch.stack([share, weight - share]).mul(_UNITS).round().long()
    nothing = torch.zeros_like(mass[0])
    foreground = torch.cat([mass[0], nothing], -1).gather(-1, order)
    background = torch.cat([nothing, mass[1]], -1).gather(-1, order)
    # Jaccard loss if the cells of the 1, 2, ... largest errors were wrong
    hit = foreground.sum(-1, keepdim=True) - foreground.cumsum(-1)
    union = foreground.sum(-1, keepdim=True) + background.cumsum(-1)
    jaccard = (union - hit) / union.clamp(min=1)
    gain = jaccard.diff(dim=-1, prepend=torch.zeros_like(jaccard[..., :1]))
    return (errors.relu() * gain).sum(-1)
