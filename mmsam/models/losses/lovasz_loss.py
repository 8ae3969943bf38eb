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
    errors = torch.cat([1 - logits, 1 + logits], -1)  # were the cells foreground, background
    share = (weight * target).expand_as(logits)
    mass = torch.cat([share, weight.expand_as(logits) - share], -1).mul(_UNITS).round().int()
    shape = errors.shape[:-1].numel(), errors.shape[-1]
    gains = _gains(errors.reshape(shape), mass.reshape(shape))
    return (errors.relu() * gains.view_as(errors)).sum(-1)


@torch.no_grad()
def _gains(errors: Tensor, mass: Tensor) -> Tensor:
    """By how much the Jaccard loss grows with each cell, if those of larger errors are wrong.

    Cells without mass and those that are right, which the loss multiplies by 0, are not sorted:
    of a trained model's mask nearly all.

    Args:
        errors: (R, 2N) float of R masks; in float32 they are put in order.
        mass: (R, 2N) int32, first of foreground, then of background.

    Returns:
        (R, 2N) of the errors' dtype, 0 for cells that are not sorted.
    """
    half = mass.shape[-1] // 2
    mask, cell = ((errors > 0) & (mass > 0)).nonzero(as_tuple=True)
    # the bits of positive floats are in the order of their values
    order = (mask << 32).sub(errors[mask, cell].float().view(torch.int32)).argsort(stable=True)
    mask, cell = mask[order], cell[order]
    sizes = mass[mask, cell].long()
    is_foreground = cell < half
    total = mass[:, :half].sum(-1)[mask]
    first = torch.searchsorted(mask, mask)  # the place of each mask's first cell

    def up_to_here(values: Tensor) -> Tensor:
        """Sum over the cells of the same mask up to each one, itself included."""
        sums = values.cumsum(0)
        return sums - (sums - values)[first]

    wrong = up_to_here(sizes)
    union = total + up_to_here(sizes * ~is_foreground)
    jaccard = wrong.double() / union
    places = torch.arange(len(mask), device=mask.device)
    before = torch.where(places == first, 0.0, jaccard.roll(1))
    gains = torch.zeros_like(errors)
    gains[mask, cell] = (jaccard - before).to(gains.dtype)
    return gains
