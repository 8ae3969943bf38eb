import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsam.geometry import logits_to_original
from mmsam.models.losses import (
    dice_loss,
    enlarged_iou,
    mask_iou,
    match_resolution,
    objects_per_rank,
    sigmoid_focal_loss,
    sigmoid_mse_loss,
)

LOSSES = [sigmoid_focal_loss, dice_loss, sigmoid_mse_loss]


def random_masks(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    return logits, (torch.rand(shape, generator=generator) > 0.6).float()


def published_focal(logits: Tensor, target: Tensor) -> Tensor:
    """SAM 2's sigmoid_focal_loss for (N, M, H, W), before the division by the objects."""
    prob = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    p_t = prob * target + (1 - prob) * (1 - target)
    alpha_t = 0.25 * target + 0.75 * (1 - target)
    return (alpha_t * entropy * (1 - p_t) ** 2).flatten(2).mean(-1)


def published_dice(logits: Tensor, target: Tensor) -> Tensor:
    prob, target = logits.sigmoid().flatten(2), target.flatten(2)
    return 1 - (2 * (prob * target).sum(-1) + 1) / (prob.sum(-1) + target.sum(-1) + 1)


def published_iou(logits: Tensor, target: Tensor) -> Tensor:
    pred, true = logits.flatten(2) > 0, target.flatten(2) > 0
    return (pred & true).sum(-1).float() / (pred | true).sum(-1).float().clamp(min=1.0)


@pytest.mark.parametrize(
    ('ours', 'published'),
    [
        (sigmoid_focal_loss, published_focal),
        (dice_loss, published_dice),
    ],
)
def test_equals_sam2_where_nothing_is_padded(ours, published):
    logits, target = random_masks(5, 3, 16, 16)
    torch.testing.assert_close(
        ours(logits, target, weight=torch.ones(1)), published(logits, target)
    )


def test_iou_equals_sam2_where_nothing_is_padded():
    logits, target = random_masks(5, 3, 16, 16)
    logits[0], target[0] = -1.0, 0.0  # both empty
    iou = mask_iou(logits, target.byte(), inside=torch.ones(16, 16, dtype=torch.uint8))
    assert torch.equal(iou, published_iou(logits, target))
    assert iou[0].tolist() == [0.0, 0.0, 0.0]


def test_closed_forms():
    # logit 0 everywhere: p = 1/2 in each of the 4 cells, 1 of them foreground
    logits, target = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    weight = torch.ones(2, 2)
    log2 = torch.log(torch.tensor(2.0))
    focal = sigmoid_focal_loss(logits, target, weight=weight)
    torch.testing.assert_close(focal, (0.25 + 3 * 0.75) / 4 * 0.25 * log2)
    # overlap 1/2, areas 2 and 1
    torch.testing.assert_close(dice_loss(logits, target, weight=weight), torch.tensor(1 - 2 / 4))
    assert sigmoid_mse_loss(logits, target, weight=weight) == 0.25


def test_weights_average_and_exclude():
    logits = torch.tensor([[2.0, -1.0, 7.0]])
    target = torch.tensor([[1.0, 0.5, 0.0]])
    weight = torch.tensor([[1.0, 0.25, 0.0]])
    single = [
        sigmoid_mse_loss(logits[:, i : i + 1], target[:, i : i + 1], weight=torch.ones(1, 1))
        for i in range(2)
    ]
    expected = (single[0] + 0.25 * single[1]) / 1.25
    torch.testing.assert_close(sigmoid_mse_loss(logits, target, weight=weight), expected)


def test_iou_counts_only_cells_inside():
    logits = torch.tensor([[2.0, -1.0, 3.0, 7.0, -2.0]])
    target = torch.tensor([[1, 1, 0, 0, 1]], dtype=torch.uint8)
    inside = torch.tensor([[1, 1, 1, 0, 0]], dtype=torch.uint8)
    # inside: a hit, a miss, a false positive; outside: a false positive and a miss
    torch.testing.assert_close(mask_iou(logits, target, inside=inside), torch.tensor(1 / 3))


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('size', [1e4, -1e4])
@pytest.mark.parametrize('foreground', [0.0, 1.0])
def test_extreme_logits_and_empty_targets_are_finite(loss, size, foreground):
    logits = torch.full((1, 4, 4), size, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), foreground), weight=torch.ones(4, 4))
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()
    if (size > 0) == (foreground > 0):
        assert value.item() == pytest.approx(0, abs=1e-6)
    else:
        assert value.item() > 0.9


@pytest.mark.parametrize('loss', LOSSES)
def test_gradcheck(loss):
    logits, target = random_masks(2, 1, 3, 3)
    weight = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    assert torch.autograd.gradcheck(
        lambda x: loss(x, target.double(), weight=weight), logits.double().requires_grad_()
    )


def test_the_tutorials_mse_has_no_gradient_and_ours_has():
    logits, target = random_masks(1, 1, 16, 16)
    logits.requires_grad_()
    F.mse_loss(F.normalize(F.threshold(logits, 0.0, 0.0)), target).backward()
    assert logits.grad.norm() < 1e-6
    logits.grad = None
    sigmoid_mse_loss(logits, target, weight=torch.ones(1)).sum().backward()
    assert logits.grad.norm() > 1e-3


def test_low_res_target_is_the_foreground_share_of_the_unpadded_px():
    # S = 8, two cells a side; the image is 8 wide and 5 high: the lower cells hold one row each
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, 0:2, 0:4] = 1  # half of the upper left cell
    masks[0, 4, 4:7] = 1  # 3 of the 4 unpadded px of the lower right cell
    masks[0, 5:, :4] = 1  # padding
    logits = torch.arange(4.0).reshape(1, 1, 2, 2)
    same, target, weight = match_resolution(
        logits, masks, input_sizes=torch.tensor([[5, 8]]), resolution='low_res'
    )
    assert torch.equal(same, logits)
    assert target[0, 0].tolist() == [[0.5, 0.0], [0.0, 0.75]]
    assert weight[0, 0].tolist() == [[1.0, 1.0], [0.25, 0.25]]


def test_low_res_cell_of_padding_only_has_no_weight_and_a_finite_target():
    _, target, weight = match_resolution(
        torch.zeros(1, 1, 2, 2),
        torch.ones(1, 8, 8),
        input_sizes=torch.tensor([[8, 4]]),
        resolution='low_res',
    )
    assert target[0, 0].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert weight[0, 0].tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_input_resolution_enlarges_as_a_prediction_does():
    logits, _ = random_masks(2, 3, 4, 4)
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    sizes = torch.tensor([[16, 10], [7, 16]])
    enlarged, target, weight = match_resolution(
        logits, masks, input_sizes=sizes, resolution='input'
    )
    assert target.shape == (2, 1, 16, 16)
    for k, (h, w) in enumerate(sizes.tolist()):
        shown = logits_to_original(logits[k : k + 1], 16, (h, w), (h, w))[0]
        torch.testing.assert_close(enlarged[k, :, :h, :w], shown)
        assert weight[k, 0, :h, :w].eq(1).all()
        assert weight[k].sum() == h * w


def test_enlarged_iou_is_the_iou_of_each_prediction():
    objects = 18  # more than are enlarged together
    logits, _ = random_masks(objects, 2, 4, 4)
    _, masks = random_masks(objects, 16, 16, seed=1)
    sizes = torch.tensor([[16, 10], [7, 16]]).repeat(objects // 2, 1)
    ious = enlarged_iou(logits.requires_grad_(), masks.byte(), input_sizes=sizes)
    assert not ious.requires_grad
    for k, (h, w) in enumerate(sizes.tolist()):
        shown = logits_to_original(logits[k : k + 1], 16, (h, w), (h, w))[0] > 0
        true = masks[k, :h, :w].bool()
        for m in range(2):
            expected = (shown[m] & true).sum() / (shown[m] | true).sum()
            torch.testing.assert_close(ious[k, m], expected)


def test_one_process_counts_its_own_objects_and_never_divides_by_zero():
    device = torch.device('cpu')
    assert objects_per_rank(7, device=device) == 7
    assert objects_per_rank(0, device=device) == 1
