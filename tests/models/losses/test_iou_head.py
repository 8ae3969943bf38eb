import pytest
import torch
import torch.nn.functional as F
from random_logits import random_logits
from torch import Tensor

from mmsam.geometry import logits_to_original
from mmsam.models.losses import enlarged_iou, iou_head_loss, mask_iou


def published_iou(logits: Tensor, target: Tensor) -> Tensor:
    pred, true = logits.flatten(2) > 0, target.flatten(2) > 0
    return (pred & true).sum(-1).float() / (pred | true).sum(-1).float().clamp(min=1.0)


def test_iou_equals_sam2_where_nothing_is_padded():
    logits, target = random_logits(5, 3, 16, 16)
    logits[0], target[0] = -1.0, 0.0  # both empty
    iou = mask_iou(logits > 0, target.bool())
    assert torch.equal(iou, published_iou(logits, target))
    assert iou[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(('kind', 'published'), [('mse', F.mse_loss), ('l1', F.l1_loss)])
def test_error_equals_sam2(kind, published):
    logits, target = random_logits(5, 3, 16, 16)
    predictions = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    iou = published_iou(logits, target)
    expected = torch.stack([published(p, i) for p, i in zip(predictions, iou, strict=True)])
    torch.testing.assert_close(iou_head_loss(predictions, iou, kind=kind), expected)


@pytest.mark.trap(3)
def test_a_logit_above_zero_is_foreground():
    # 0.2 is a probability of 0.55: foreground, though below 0.5 as a logit
    logits = torch.tensor([0.2, -0.2]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    everything = torch.ones(1, 16, 16, dtype=torch.uint8)
    ious = enlarged_iou(logits, everything, input_sizes=torch.tensor([[16, 16]]))
    assert ious.tolist() == [[1, 0]]


@pytest.mark.trap(8)
def test_iou_counts_only_pixels_inside():
    target = torch.zeros(1, 16, 16, dtype=torch.uint8)
    target[:, :6] = 1  # 36 px of an image of 12x6, and padding
    shown = torch.ones(1, 1, 4, 4)
    iou = enlarged_iou(shown, target, input_sizes=torch.tensor([[12, 6]]))
    torch.testing.assert_close(iou, torch.tensor([[36 / 72]]))


def test_enlarged_iou_is_the_iou_of_each_prediction():
    objects = 18  # more than are enlarged together
    logits, _ = random_logits(objects, 2, 4, 4)
    _, masks = random_logits(objects, 16, 16, seed=1)
    sizes = torch.tensor([[16, 10], [7, 16]]).repeat(objects // 2, 1)
    ious = enlarged_iou(logits.requires_grad_(), masks.byte(), input_sizes=sizes)
    assert not ious.requires_grad
    for k, (h, w) in enumerate(sizes.tolist()):
        shown = logits_to_original(logits[k : k + 1], 16, (h, w), (h, w))[0] > 0
        true = masks[k, :h, :w].bool()
        for m in range(2):
            expected = (shown[m] & true).sum() / (shown[m] | true).sum()
            torch.testing.assert_close(ious[k, m], expected)
