import torch
from random_logits import random_logits

from mmsam.models.losses.uncertain_points import logits_at, uncertain_points

SIDE = 64


def ramp() -> torch.Tensor:
    """Logits that grow from left to right through 0 in the middle of the image."""
    return torch.linspace(-8, 8, SIDE // 4).expand(1, 1, SIDE // 4, SIDE // 4)


def test_number_and_frame():
    logits, _ = random_logits(3, 1, 16, 16)
    sizes = torch.tensor([[64, 20], [7, 64], [1, 1]])
    points = uncertain_points(logits, sizes, SIDE)
    assert points.shape == (3, 12544, 2) and points.dtype == torch.int64
    for own, (h, w) in zip(points, sizes.tolist(), strict=True):
        # every row and column of so small an image is met, and nothing else
        assert own[:, 0].unique().tolist() == list(range(w))
        assert own[:, 1].unique().tolist() == list(range(h))


def test_three_quarters_are_the_most_uncertain_of_three_times_as_many():
    x = uncertain_points(ramp(), torch.tensor([[SIDE, SIDE]]), SIDE)[0, :, 0]
    chosen, even = x[:9408], x[9408:]
    # a quarter of all candidates is kept: a quarter of the width, in the middle
    assert abs(chosen - (SIDE - 1) / 2).max() <= SIDE / 8 + 1
    counts = even.bincount(minlength=SIDE).float()
    assert (counts - len(even) / SIDE).abs().max() < 5 * (len(even) / SIDE) ** 0.5


def test_masks_of_an_object_share_points_that_are_uncertain_in_any():
    certain = torch.full_like(ramp(), 30.0)
    logits = torch.cat([certain, ramp(), certain], dim=1)
    sizes = torch.tensor([[SIDE, SIDE]])
    torch.manual_seed(0)
    alone = uncertain_points(ramp(), sizes, SIDE)
    torch.manual_seed(0)
    assert torch.equal(uncertain_points(logits, sizes, SIDE), alone)


def test_drawn_with_torchs_generator():
    sizes = torch.tensor([[SIDE, SIDE]])
    state = torch.get_rng_state()
    first = uncertain_points(ramp(), sizes, SIDE)
    other = uncertain_points(ramp(), sizes, SIDE)
    torch.set_rng_state(state)
    assert torch.equal(uncertain_points(ramp(), sizes, SIDE), first)
    assert not torch.equal(other, first)


def test_logits_at_has_a_gradient():
    logits = random_logits(2, 2, 4, 4)[0].double().requires_grad_()
    points = torch.tensor([[[0, 0], [15, 15], [7, 3]], [[2, 9], [5, 5], [13, 0]]])
    assert torch.autograd.gradcheck(lambda x: logits_at(x, points, 16), logits)
