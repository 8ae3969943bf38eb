import pytest
import torch
import torch.nn.functional as F
from random_logits import random_logits
from torch import Tensor

from mmsam.models.losses import (
    binary_cross_entropy_loss,
    dice_loss,
    lovasz_hinge_loss,
    sigmoid_focal_loss,
    sigmoid_mse_loss,
)

PIXELWISE = [sigmoid_focal_loss, binary_cross_entropy_loss, dice_loss, sigmoid_mse_loss]
LOSSES = [*PIXELWISE, lovasz_hinge_loss]


def published_focal(logits: Tensor, target: Tensor) -> Tensor:
    """SAM 2's sigmoid_focal_loss for (N, M, cells), before the division by the objects."""
    prob = logits.sigmoid()
    entropy = -(target * prob.log() + (1 - target) * (1 - prob).log())
    p_t = prob * target + (1 - prob) * (1 - target)
    alpha_t = 0.25 * target + 0.75 * (1 - target)
    return (alpha_t * entropy * (1 - p_t) ** 2).mean(-1)


def published_dice(logits: Tensor, target: Tensor) -> Tensor:
    prob = logits.sigmoid()
    return 1 - (2 * (prob * target).sum(-1) + 1) / (prob.sum(-1) + target.sum(-1) + 1)


@pytest.mark.parametrize(
    ('ours', 'published'), [(sigmoid_focal_loss, published_focal), (dice_loss, published_dice)]
)
@pytest.mark.trap(2)
def test_equals_sam2_where_nothing_is_padded(ours, published):
    logits, target = random_logits(5, 3, 256)
    torch.testing.assert_close(
        ours(logits, target, weight=torch.ones(1)), published(logits, target)
    )


def test_closed_forms():
    # logit 0 everywhere: p = 1/2 in each of the 4 cells, 1 of them foreground
    logits, target, weight = torch.zeros(4), torch.tensor([1.0, 0, 0, 0]), torch.ones(4)
    log2 = torch.log(torch.tensor(2.0))
    focal = sigmoid_focal_loss(logits, target, weight=weight)
    torch.testing.assert_close(focal, (0.25 + 3 * 0.75) / 4 * 0.25 * log2)
    torch.testing.assert_close(binary_cross_entropy_loss(logits, target, weight=weight), log2)
    # overlap 1/2, areas 2 and 1
    torch.testing.assert_close(dice_loss(logits, target, weight=weight), torch.tensor(1 - 2 / 4))
    assert sigmoid_mse_loss(logits, target, weight=weight) == 0.25


@pytest.mark.parametrize('loss', [sigmoid_mse_loss, binary_cross_entropy_loss, sigmoid_focal_loss])
def test_weights_average_and_exclude(loss):
    logits = torch.tensor([2.0, -1.0, 7.0])
    target = torch.tensor([1.0, 0.5, 0.0])
    one, other = (
        loss(logits[i : i + 1], target[i : i + 1], weight=torch.ones(1)) for i in range(2)
    )
    weight = torch.tensor([1.0, 0.25, 0.0])
    torch.testing.assert_close(loss(logits, target, weight=weight), (one + 0.25 * other) / 1.25)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('size', [1e4, -1e4])
@pytest.mark.parametrize('foreground', [0.0, 1.0])
def test_extreme_logits_and_empty_targets_are_finite(loss, size, foreground):
    logits = torch.full((1, 16), size, requires_grad=True)
    value = loss(logits, torch.full((1, 16), foreground), weight=torch.ones(16))
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()
    if (size > 0) == (foreground > 0):
        assert value.item() == pytest.approx(0, abs=1e-6)
    else:
        assert value.item() > 0.9


@pytest.mark.parametrize('loss', LOSSES)
def test_no_cell_that_counts_gives_zero(loss):
    logits = torch.tensor([3.0, -2.0], requires_grad=True)
    value = loss(logits, torch.tensor([0.0, 1.0]), weight=torch.zeros(2))
    value.backward()
    assert value == 0 and logits.grad.tolist() == [0, 0]


@pytest.mark.parametrize('loss', LOSSES)
def test_gradcheck(loss):
    logits, target = random_logits(2, 1, 9)
    weight = torch.rand(1, 1, 9, generator=torch.Generator().manual_seed(1)).double()
    soft = (0.2 + 0.5 * target).double()
    for truth in (target.double(), soft):
        assert torch.autograd.gradcheck(
            lambda x, truth=truth: loss(x, truth, weight=weight), logits.double().requires_grad_()
        )


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.trap(2)
def test_a_third_argument_without_a_name_is_refused(loss):
    """A number of objects would else land in ``alpha`` or ``weight``."""
    with pytest.raises(TypeError):
        loss(torch.zeros(4), torch.zeros(4), 8)


@pytest.mark.trap(1)
def test_the_tutorials_mse_has_no_gradient_and_ours_has():
    logits, target = random_logits(1, 1, 16, 16)
    logits.requires_grad_()
    F.mse_loss(F.normalize(F.threshold(logits, 0.0, 0.0)), target).backward()
    assert logits.grad.norm() < 1e-6
    logits.grad = None
    ours = sigmoid_mse_loss(logits.flatten(2), target.flatten(2), weight=torch.ones(1))
    ours.sum().backward()
    assert logits.grad.norm() > 1e-3
