import torch
from random_logits import random_logits

from mmsam.geometry import logits_to_original
from mmsam.models.losses import compare, foreground_share
from mmsam.models.losses.uncertain_points import uncertain_points


def test_low_res_target_is_the_foreground_share_of_the_unpadded_px():
    # S = 8, two cells a side; the image is 8 wide and 5 high: the lower cells hold one row each
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, 0:2, 0:4] = 1  # half of the upper left cell
    masks[0, 4, 4:7] = 1  # 3 of the 4 unpadded px of the lower right cell
    masks[0, 5:, :4] = 1  # padding
    logits = torch.arange(4.0).reshape(1, 1, 2, 2)
    cells = compare(logits, masks, input_sizes=torch.tensor([[5, 8]]), resolution='low_res')
    assert cells.logits[0, 0].tolist() == [0, 1, 2, 3]
    assert cells.target[0, 0].tolist() == [0.5, 0.0, 0.0, 0.75]
    assert cells.weight[0, 0].tolist() == [1.0, 1.0, 0.25, 0.25]


def test_low_res_cell_of_padding_only_has_no_weight_and_a_finite_target():
    share, weight = foreground_share(torch.ones(1, 8, 8), torch.tensor([[8, 4]]))
    assert share[0, 0].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert weight[0, 0].tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_input_resolution_enlarges_as_a_prediction_does():
    logits, _ = random_logits(2, 3, 4, 4)
    _, masks = random_logits(2, 16, 16, seed=1)
    sizes = torch.tensor([[16, 10], [7, 16]])
    cells = compare(logits, masks.byte(), input_sizes=sizes, resolution='input')
    assert torch.equal(cells.target[:, 0], masks.flatten(1))
    for k, (h, w) in enumerate(sizes.tolist()):
        shown = logits_to_original(logits[k : k + 1], 16, (h, w), (h, w))[0]
        enlarged = cells.logits[k].view(3, 16, 16)[:, :h, :w]
        torch.testing.assert_close(enlarged, shown)
        weight = cells.weight[k, 0].view(16, 16)
        assert weight[:h, :w].eq(1).all() and weight.sum() == h * w


def test_points_are_some_of_the_input_px():
    logits, _ = random_logits(2, 3, 4, 4)
    _, masks = random_logits(2, 16, 16, seed=1)
    arguments = dict(input_sizes=torch.tensor([[16, 10], [7, 16]]))
    dense = compare(logits, masks.byte(), **arguments, resolution='input')
    torch.manual_seed(0)
    x, y = uncertain_points(logits, side=16, **arguments).unbind(-1)
    torch.manual_seed(0)
    points = compare(logits, masks.byte(), **arguments, resolution='points')
    index = (y * 16 + x)[:, None]
    torch.testing.assert_close(points.target, dense.target.gather(-1, index))
    torch.testing.assert_close(points.logits, dense.logits.gather(-1, index.expand(-1, 3, -1)))
    assert dense.weight.gather(-1, index).eq(1).all()  # no padding
    assert points.weight.eq(1).all()


def test_every_cell_knows_its_low_res_cell():
    """With low-res cells numbered, the numbers as logits, enlarged to the nearest, as a check."""
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    sizes = torch.tensor([[16, 10], [7, 16]])
    number = torch.arange(16.0).view(1, 1, 4, 4).repeat(2, 1, 1, 1)
    number[1] += 100
    cells = compare(number, masks, input_sizes=sizes, resolution='low_res')
    assert torch.equal(cells.of_low_res(number), cells.logits)
    cells = compare(number, masks, input_sizes=sizes, resolution='input')
    nearest = number.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(cells.of_low_res(number), nearest.flatten(2))
    torch.manual_seed(0)
    x, y = uncertain_points(number, sizes, 16).unbind(-1)
    torch.manual_seed(0)
    cells = compare(number, masks, input_sizes=sizes, resolution='points')
    own = torch.arange(2)[:, None]
    assert torch.equal(cells.of_low_res(number)[:, 0], nearest[own, 0, y, x])
