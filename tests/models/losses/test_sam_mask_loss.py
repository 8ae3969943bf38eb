"""Run as a script, this file is one rank of ``test_two_ranks_average_over_all_objects``."""

import json

import pytest
import torch
import torch.nn.functional as F
from two_ranks import join_the_other_rank, run_on_two_ranks

from mmsam.errors import ConfigError
from mmsam.models.losses import MaskMSELoss, SAMMaskLoss, dice_loss, sigmoid_focal_loss
from mmsam.registry import MODELS

SIDE = 32
LOSSES = [SAMMaskLoss, MaskMSELoss]
RESOLUTIONS = ['low_res', 'input']


def batch(prompts: int, masks: int = 1, size: tuple[int, int] = (SIDE, SIDE), seed: int = 0):
    """Random arguments of a loss, all prompts on images of one ``size``, padding empty."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(prompts, SIDE, SIDE, generator=generator) > 0.5
    target[:, size[0] :] = False
    target[:, :, size[1] :] = False
    return {
        'low_res_logits': torch.randn(prompts, masks, SIDE // 4, SIDE // 4, generator=generator),
        'iou_predictions': torch.rand(prompts, masks, generator=generator),
        'target_masks': target.byte(),
        'input_sizes': torch.tensor([size] * prompts).reshape(prompts, 2),
    }


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(value for name, value in losses.items() if 'loss' in name)


@pytest.mark.parametrize('name', ['SAMMaskLoss', 'MaskMSELoss'])
def test_registered_and_without_state(name):
    loss = MODELS.build(dict(type=name, resolution='input'))
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []


@pytest.mark.parametrize('loss', LOSSES)
def test_wrong_options_fail_when_built(loss):
    with pytest.raises(ConfigError, match="low_res, input, got 'full'"):
        loss(resolution='full')
    with pytest.raises(TypeError):
        loss(resolutoin='input')
    with pytest.raises(TypeError):
        loss('input')


def test_weights_and_mean_over_objects():
    arguments = batch(3)
    losses = SAMMaskLoss(resolution='input')(**arguments)
    logits = F.interpolate(arguments['low_res_logits'], (SIDE, SIDE), mode='bilinear')[:, 0]
    target = arguments['target_masks'].float()
    ones = torch.ones(1, 1)
    focal = sigmoid_focal_loss(logits, target, weight=ones)
    torch.testing.assert_close(losses['loss_focal'], 20 * focal.mean())
    dice = dice_loss(logits, target, weight=ones)
    torch.testing.assert_close(losses['loss_dice'], dice.mean())
    pred, true = logits > 0, target > 0
    iou = (pred & true).sum((1, 2)) / (pred | true).sum((1, 2))
    error = (arguments['iou_predictions'][:, 0] - iou).square().mean()
    torch.testing.assert_close(losses['loss_iou'], error)
    torch.testing.assert_close(losses['train_iou'], iou.mean())

    doubled = SAMMaskLoss(resolution='input', focal_weight=40, dice_weight=2, iou_weight=2)
    torch.testing.assert_close(total(doubled(**arguments)), 2 * total(losses))


@pytest.mark.parametrize('size', [(SIDE, 15), (15, SIDE)])
@pytest.mark.parametrize('resolution', RESOLUTIONS)
@pytest.mark.parametrize('loss', LOSSES)
def test_padding_does_not_count(loss, resolution, size):
    loss = loss(resolution=resolution)
    arguments = batch(2, masks=3, size=size)
    expected = loss(**arguments)
    # 15 px reach into the 4th cell; the 5th is its neighbour in the enlarging
    arguments['low_res_logits'][:, :, 5 if size[0] == 15 else 0 :, 5 if size[1] == 15 else 0 :] = 50
    arguments['target_masks'][:, 15 if size[0] == 15 else 0 :, 15 if size[1] == 15 else 0 :] = 1
    torch.testing.assert_close(loss(**arguments), expected)
    arguments['low_res_logits'][:, :, 3, 3] = 50
    assert total(loss(**arguments)) != total(expected)


def test_low_res_padding_next_to_the_image_does_not_count():
    loss = SAMMaskLoss(resolution='low_res', iou_weight=0)
    arguments = batch(2, size=(SIDE, 16))
    expected = total(loss(**arguments))
    arguments['low_res_logits'][..., 4:] = 50
    torch.testing.assert_close(total(loss(**arguments)), expected)


@pytest.mark.parametrize('loss', LOSSES)
def test_of_three_masks_the_best_one_is_trained_for_each_prompt(loss):
    arguments = batch(2, masks=3)
    target = F.avg_pool2d(arguments['target_masks'][:, None].float(), 4)
    logits = torch.full_like(arguments['low_res_logits'], 3.0)
    logits[0, 2] = 4 * (target[0, 0] - 0.5)
    logits[1, 1] = 4 * (target[1, 0] - 0.5)
    arguments['low_res_logits'] = logits.requires_grad_()
    losses = loss()(**arguments)
    total(losses).backward()
    trained = logits.grad.abs().sum((2, 3)) > 0
    assert trained.tolist() == [[False, False, True], [False, True, False]]


def test_iou_head_learns_the_iou_of_all_masks():
    arguments = batch(1, masks=3)
    arguments['iou_predictions'].requires_grad_()
    best = SAMMaskLoss()
    for _ in range(60):
        loss = best(**arguments)['loss_iou']
        (gradient,) = torch.autograd.grad(loss, arguments['iou_predictions'])
        with torch.no_grad():
            arguments['iou_predictions'] -= gradient
    shown = F.interpolate(arguments['low_res_logits'], (SIDE, SIDE), mode='bilinear')[0] > 0
    true = arguments['target_masks'].bool()
    expected = (shown & true).sum((1, 2)) / (shown | true).sum((1, 2))
    torch.testing.assert_close(arguments['iou_predictions'][0].detach(), expected)


@pytest.mark.parametrize('resolution', RESOLUTIONS)
@pytest.mark.parametrize('loss', LOSSES)
def test_no_prompts_give_zeros_that_reach_the_graph(loss, resolution):
    parameter = torch.ones(1, requires_grad=True)
    arguments = batch(0, masks=3)
    arguments['low_res_logits'] = arguments['low_res_logits'] * parameter
    arguments['iou_predictions'] = arguments['iou_predictions'] * parameter
    losses = loss(resolution=resolution)(**arguments)
    assert {name: value.item() for name, value in losses.items()} == dict.fromkeys(losses, 0.0)
    for value in losses.values():
        (gradient,) = torch.autograd.grad(value, parameter, retain_graph=True)
        assert gradient == 0


@pytest.mark.parametrize('loss', LOSSES)
def test_computed_in_float32(loss):
    arguments = batch(2)
    arguments['low_res_logits'] = arguments['low_res_logits'].bfloat16()
    arguments['iou_predictions'] = arguments['iou_predictions'].bfloat16()
    rounded = {
        name: value.float() if value.is_floating_point() else value
        for name, value in arguments.items()
    }
    torch.testing.assert_close(loss()(**arguments), loss()(**rounded), rtol=0, atol=0)


@pytest.mark.parametrize('loss', LOSSES)
def test_descent_finds_the_mask(loss):
    arguments = batch(2, size=(SIDE, 20))
    arguments['target_masks'].zero_()[:, 4:20, 4:16] = 1
    logits = arguments['low_res_logits'].mul_(0.1).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(40):
        optimizer.zero_grad()
        losses = loss()(**arguments)
        total(losses).backward()
        optimizer.step()
    assert losses['train_iou'] > 0.95


def test_two_ranks_average_over_all_objects(tmp_path):
    """Ranks with 3 and 0 prompts: the mean of their losses is the mean over all 3."""
    run_on_two_ranks(__file__, tmp_path)
    ranks = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2)]
    for name in ('loss_focal', 'loss_dice', 'loss_iou'):
        expected = SAMMaskLoss()(**batch(3))[name].item()
        assert (ranks[0][name] + ranks[1][name]) / 2 == pytest.approx(expected, rel=1e-5)
        assert ranks[1][name] == 0


if __name__ == '__main__':
    folder = join_the_other_rank()
    rank = torch.distributed.get_rank()
    values = SAMMaskLoss()(**batch(0 if rank else 3))
    (folder / f'{rank}.json').write_text(
        json.dumps({name: value.item() for name, value in values.items()})
    )
    torch.distributed.destroy_process_group()
