import itertools

import pytest
import torch

from mmsam.models.losses import lovasz_hinge_loss


def by_definition(errors: list[float], target: list[int]) -> float:
    """Lovasz extension of the Jaccard loss of a few px, by sorting and counting sets."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    truth = {i for i, t in enumerate(target) if t}

    def jaccard_loss(wrong: set[int]) -> float:
        shown = truth ^ wrong
        union = truth | shown
        return 1 - len(truth & shown) / len(union) if union else 0.0

    value = 0.0
    for k, i in enumerate(order):
        gain = jaccard_loss(set(order[: k + 1])) - jaccard_loss(set(order[:k]))
        value += max(errors[i], 0) * gain
    return value


@pytest.mark.parametrize('target', list(itertools.product([0, 1], repeat=3)))
def test_few_pixels_by_definition(target):
    logits = [0.3, -1.7, 0.9]
    errors = [1 - x * (2 * t - 1) for x, t in zip(logits, target, strict=True)]
    loss = lovasz_hinge_loss(
        torch.tensor(logits), torch.tensor(target).float(), weight=torch.ones(3)
    )
    assert loss.item() == pytest.approx(by_definition(errors, target), abs=1e-6)


def test_hard_masks_at_the_margin_give_twice_one_minus_iou():
    generator = torch.Generator().manual_seed(0)
    shown, true = torch.rand(2, 20, 50, generator=generator) > 0.5
    true[0] = False  # an empty target, something shown: an IoU of 0
    iou = (shown & true).sum(1) / (shown | true).sum(1)
    loss = lovasz_hinge_loss(2.0 * shown - 1, true.float(), weight=torch.ones(50))
    torch.testing.assert_close(loss, 2 * (1 - iou))


def test_one_wrong_pixel_of_an_object_of_four():
    # background px wrong by 1.5: the hinge error 1.5 times 1 - 4/5
    logits = torch.tensor([2.0, 2, 2, 2, 0.5, -3])
    target = torch.tensor([1.0, 1, 1, 1, 0, 0])
    loss = lovasz_hinge_loss(logits, target, weight=torch.ones(6))
    assert loss.item() == pytest.approx(1.5 / 5)


def test_a_partly_covered_cell_is_as_its_pixels():
    """4 px in a cell, 1 of them foreground, are the same as a share of a quarter at weight 4."""
    logits = torch.tensor([0.2, -0.7, 0.4])
    share = torch.tensor([0.25, 1.0, 0.0])
    weight = torch.tensor([1.0, 0.5, 0.75])
    pixels = logits.repeat_interleave(4)
    inside = torch.tensor([1.0] * 4 + [1, 1, 0, 0] + [1, 1, 1, 0])
    target = torch.tensor([1.0, 0, 0, 0] + [1] * 4 + [0] * 4)
    torch.testing.assert_close(
        lovasz_hinge_loss(logits, share, weight=weight),
        lovasz_hinge_loss(pixels, target, weight=inside),
    )


def test_padding_does_not_count_however_wrong():
    logits = torch.tensor([50.0, -50.0, 0.5, -0.5])
    target = torch.tensor([0.0, 1.0, 1.0, 0.0])
    weight = torch.tensor([0.0, 0.0, 1.0, 1.0])
    torch.testing.assert_close(
        lovasz_hinge_loss(logits, target, weight=weight),
        lovasz_hinge_loss(logits[2:], target[2:], weight=torch.ones(2)),
    )


def by_sorting_all(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor):
    """Equation 11 on all cells, also those that are right or without weight."""
    errors, order = torch.cat([1 - logits, 1 + logits], -1).sort(dim=-1, descending=True)
    share = (weight * target).expand_as(logits)
    nothing = torch.zeros_like(share)
    foreground = torch.cat([share, nothing], -1).gather(-1, order)
    background = torch.cat([nothing, weight - share], -1).gather(-1, order)
    union = foreground.sum(-1, keepdim=True) + background.cumsum(-1)
    jaccard = (foreground.cumsum(-1) + background.cumsum(-1)) / union.clamp(min=1e-9)
    return (errors.relu() * jaccard.diff(dim=-1, prepend=nothing[..., :1])).sum(-1)


def test_values_and_gradients_of_a_batch_are_those_of_sorting_all():
    """Three masks for each of four objects; the first is all right, the second has no target."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(4, 1, 60, generator=generator, dtype=torch.float64)
    target = (target * 6 - 2).clamp(0, 1).mul(16).round() / 16  # most cells all or nothing
    weight = torch.rand(4, 1, 60, generator=generator).mul(4).round().double() / 4
    logits = 2 * torch.randn(4, 3, 60, generator=generator, dtype=torch.float64)
    target[0], logits[0] = target[0].round(), 5 * (target[0].round() - 0.5)
    target[1] = 0
    logits.requires_grad_()
    loss = lovasz_hinge_loss(logits, target, weight=weight)
    expected = by_sorting_all(logits, target, weight)
    assert loss[0].tolist() == [0, 0, 0]
    assert (loss[1:] > 0).all()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-8)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-8)
