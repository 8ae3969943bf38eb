import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsam.errors import ConfigError
from mmsam.models.losses import (
    SAMMaskLoss,
    binary_cross_entropy_loss,
    dice_loss,
    lovasz_hinge_loss,
    sigmoid_focal_loss,
    sigmoid_mse_loss,
)
from mmsam.registry import MODELS

SIDE = 32
RESOLUTIONS = ['low_res', 'points', 'input']
FUNCTIONS = {
    'focal': sigmoid_focal_loss,
    'dice': dice_loss,
    'bce': binary_cross_entropy_loss,
    'mse': sigmoid_mse_loss,
    'lovasz': lovasz_hinge_loss,
}
ALL_TERMS = dict.fromkeys([f'{name}_weight' for name in (*FUNCTIONS, 'boundary', 'iou')], 1.0)


def only(term: str, **options) -> SAMMaskLoss:
    """A loss that trains the masks with one term."""
    return SAMMaskLoss(**dict(focal_weight=0, dice_weight=0) | {f'{term}_weight': 1.0} | options)


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


def with_gradient(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    names = ('low_res_logits', 'iou_predictions')
    return arguments | {name: arguments[name].clone().requires_grad_() for name in names}


def drawn_anew(loss: SAMMaskLoss, arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses, with the same points in every call."""
    torch.manual_seed(0)
    return loss(**arguments)


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(value.sum() for name, value in losses.items() if name.startswith('loss_'))


def shown_and_true(arguments: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Enlarged and thresholded logits (P, M, S, S), and the true masks (P, 1, S, S)."""
    enlarged = F.interpolate(arguments['low_res_logits'], (SIDE, SIDE), mode='bilinear')
    return enlarged > 0, arguments['target_masks'][:, None] > 0


# -- options


def test_registered_and_without_state():
    loss = MODELS.build(dict(type='SAMMaskLoss', resolution='input'))
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(resolution='full'), "resolution .* low_res, points, input, got 'full'"),
        (dict(iou_loss='l2'), "iou_loss .* mse, l1, got 'l2'"),
        (dict(dice_weight=-1.0), "no negative weight .*'dice': -1.0"),
        (dict(iou_weight=-1.0), "no negative weight .*'iou': -1.0"),
        (dict(focal_weight=0, dice_weight=0), 'one above 0 for the masks'),
    ],
)
def test_wrong_options_fail_when_built(options, message):
    with pytest.raises(ConfigError, match=message):
        SAMMaskLoss(**options)


def test_misspelled_and_unnamed_options_fail_when_built():
    with pytest.raises(TypeError):
        SAMMaskLoss(resolutoin='input')
    with pytest.raises(TypeError):
        SAMMaskLoss('input')


def test_says_what_it_is():
    text = repr(SAMMaskLoss(resolution='points', focal_weight=0, lovasz_weight=0.5, iou_loss='l1'))
    for part in ("'points'", 'dice_weight=1.0', 'lovasz_weight=0.5', 'iou_weight=1.0', "'l1'"):
        assert part in text
    assert 'focal' not in text


# -- values


@pytest.mark.parametrize('term', FUNCTIONS)
def test_one_value_per_prompt_of_each_term(term):
    arguments = batch(3)
    losses = only(term, resolution='input')(**arguments)
    assert set(losses) == {f'loss_{term}', 'loss_iou', 'train_iou'}
    logits = F.interpolate(arguments['low_res_logits'], (SIDE, SIDE), mode='bilinear')
    for k in range(3):
        expected = FUNCTIONS[term](
            logits[k, 0].flatten(),
            arguments['target_masks'][k].flatten().float(),
            weight=torch.ones(1),
        )
        torch.testing.assert_close(losses[f'loss_{term}'][k], expected)


@pytest.mark.parametrize('kind', ['mse', 'l1'])
def test_iou_of_every_prompt(kind):
    arguments = batch(3)
    losses = SAMMaskLoss(iou_loss=kind)(**arguments)
    shown, true = shown_and_true(arguments)
    iou = ((shown & true).sum((2, 3)) / (shown | true).sum((2, 3)))[:, 0]
    error = arguments['iou_predictions'][:, 0] - iou
    torch.testing.assert_close(losses['loss_iou'], error.abs() if kind == 'l1' else error**2)
    torch.testing.assert_close(losses['train_iou'], iou)


def test_cross_entropy_along_the_outline():
    """A square of 8 low-res cells: the band is a ring of two cells, at every resolution."""
    arguments = batch(1)
    arguments['target_masks'].zero_()[:, 8:24, 8:24] = 1
    ring = torch.zeros(8, 8, dtype=torch.bool)
    ring[1:7, 1:7] = True
    ring[3:5, 3:5] = False
    inner = torch.zeros(8, 8)
    inner[2:6, 2:6] = 1
    logits = arguments['low_res_logits']
    expected = F.binary_cross_entropy_with_logits(logits[0, 0][ring], inner[ring])
    losses = only('boundary')(**arguments)
    torch.testing.assert_close(losses['loss_boundary'][0], expected)

    def grown(cells: Tensor) -> Tensor:
        return cells.repeat_interleave(4, 0).repeat_interleave(4, 1)

    enlarged = F.interpolate(logits, (SIDE, SIDE), mode='bilinear')[0, 0]
    expected = F.binary_cross_entropy_with_logits(enlarged[grown(ring)], grown(inner)[grown(ring)])
    losses = only('boundary', resolution='input')(**arguments)
    torch.testing.assert_close(losses['loss_boundary'][0], expected)


def test_weights():
    arguments = batch(3)
    losses = SAMMaskLoss(**ALL_TERMS)(**arguments)
    doubled = SAMMaskLoss(**{name: 2.0 for name in ALL_TERMS})(**arguments)
    assert len(losses) == len(ALL_TERMS) + 1
    for name, value in losses.items():
        torch.testing.assert_close(doubled[name], value if name == 'train_iou' else 2 * value)


# -- padding


@pytest.mark.parametrize('size', [(SIDE, 15), (15, SIDE)])
@pytest.mark.parametrize('resolution', RESOLUTIONS)
@pytest.mark.trap(8)
def test_padding_does_not_count(resolution, size):
    loss = SAMMaskLoss(**ALL_TERMS, resolution=resolution)
    arguments = batch(2, masks=3, size=size)
    expected = drawn_anew(loss, arguments)
    # 15 px reach into the 4th cell; the 5th is its neighbour in the enlarging
    arguments['low_res_logits'][:, :, 5 if size[0] == 15 else 0 :, 5 if size[1] == 15 else 0 :] = 50
    arguments['target_masks'][:, 15 if size[0] == 15 else 0 :, 15 if size[1] == 15 else 0 :] = 1
    torch.testing.assert_close(drawn_anew(loss, arguments), expected)
    arguments['low_res_logits'][:, :, 3, 3] = 50
    assert total(drawn_anew(loss, arguments)) != total(expected)


def test_low_res_padding_next_to_the_image_does_not_count():
    loss = SAMMaskLoss(**(ALL_TERMS | dict(iou_weight=0)))
    arguments = batch(2, size=(SIDE, 16))
    expected = total(loss(**arguments))
    arguments['low_res_logits'][..., 4:] = 50
    torch.testing.assert_close(total(loss(**arguments)), expected)


# -- objects


@pytest.mark.parametrize('resolution', RESOLUTIONS)
@pytest.mark.trap(5)
def test_of_three_masks_the_best_one_is_trained_for_each_prompt(resolution):
    arguments = batch(2, masks=3)
    target = F.avg_pool2d(arguments['target_masks'][:, None].float(), 4)
    arguments['low_res_logits'].fill_(3.0)
    arguments['low_res_logits'][0, 2] = 4 * (target[0, 0] - 0.5)
    arguments['low_res_logits'][1, 1] = 4 * (target[1, 0] - 0.5)
    arguments = with_gradient(arguments)
    total(SAMMaskLoss(resolution=resolution)(**arguments)).backward()
    trained = arguments['low_res_logits'].grad.abs().sum((2, 3)) > 0
    assert trained.tolist() == [[False, False, True], [False, True, False]]
    assert arguments['iou_predictions'].grad.ne(0).all()  # the IoU head for all three


@pytest.mark.trap(4)
def test_iou_head_learns_the_iou_of_all_masks():
    arguments = with_gradient(batch(1, masks=3))
    best = SAMMaskLoss()
    for _ in range(60):
        loss = best(**arguments)['loss_iou'].sum()
        (gradient,) = torch.autograd.grad(loss, arguments['iou_predictions'])
        with torch.no_grad():
            arguments['iou_predictions'] -= gradient
    shown, true = shown_and_true(arguments)
    expected = (shown & true).sum((2, 3)) / (shown | true).sum((2, 3))
    torch.testing.assert_close(arguments['iou_predictions'].detach(), expected)


@pytest.mark.parametrize('resolution', ['low_res', 'input'])
def test_an_object_counts_the_same_among_375_and_among_8(resolution):
    loss = SAMMaskLoss(**ALL_TERMS, resolution=resolution)
    many, few = with_gradient(batch(375)), with_gradient(batch(8, seed=1))
    together = with_gradient({name: torch.cat([many[name], few[name]]).detach() for name in many})
    for arguments in (many, few, together):
        losses = loss(**arguments)
        assert all(value.shape == (len(arguments['target_masks']),) for value in losses.values())
        total(losses).backward()
    for name in ('low_res_logits', 'iou_predictions'):
        alone = torch.cat([many[name].grad, few[name].grad])
        torch.testing.assert_close(together[name].grad, alone)


@pytest.mark.parametrize('term', [*FUNCTIONS, 'boundary'])
def test_an_object_of_2x2_px_pulls_its_cell_up(term):
    """At low-res it covers a quarter of one cell, which has to end above the empty ones."""
    arguments = batch(1)
    arguments['target_masks'].zero_()[:, 8:10, 12:14] = 1
    arguments['low_res_logits'].fill_(-3.0)
    arguments = with_gradient(arguments)
    total(only(term, iou_weight=0)(**arguments)).backward()
    gradient = arguments['low_res_logits'].grad[0, 0]
    assert gradient[2, 3] < 0  # descent raises the logit
    gradient[2, 3] = 0
    assert gradient.min() >= 0


# -- no objects, extreme values, number types


@pytest.mark.parametrize('resolution', RESOLUTIONS)
@pytest.mark.trap(15)
def test_no_prompts_give_nothing_that_still_reaches_the_graph(resolution):
    parameter = torch.ones(1, requires_grad=True)
    arguments = batch(0, masks=3)
    arguments['low_res_logits'] = arguments['low_res_logits'] * parameter
    arguments['iou_predictions'] = arguments['iou_predictions'] * parameter
    losses = SAMMaskLoss(**ALL_TERMS, resolution=resolution)(**arguments)
    for name, value in losses.items():
        assert value.shape == (0,)
        if name != 'train_iou':
            (gradient,) = torch.autograd.grad(value.sum(), parameter, retain_graph=True)
            assert gradient == 0


@pytest.mark.parametrize('logit', [-1e4, 0.0, 1e4])
@pytest.mark.parametrize('resolution', RESOLUTIONS)
@pytest.mark.trap(15)
def test_empty_masks_and_extreme_logits_are_finite(resolution, logit):
    arguments = batch(2, masks=3)
    arguments['target_masks'].zero_()
    arguments['low_res_logits'].fill_(logit)
    arguments = with_gradient(arguments)
    losses = SAMMaskLoss(**ALL_TERMS, resolution=resolution)(**arguments)
    total(losses).backward()
    assert all(value.isfinite().all() for value in losses.values())
    assert arguments['low_res_logits'].grad.isfinite().all()
    assert arguments['iou_predictions'].grad.isfinite().all()


def test_without_iou_weight_the_head_stays_in_the_graph():
    arguments = with_gradient(batch(2))
    total(SAMMaskLoss(iou_weight=0)(**arguments)).backward()
    assert arguments['iou_predictions'].grad.eq(0).all()


@pytest.mark.parametrize('resolution', RESOLUTIONS)
def test_computed_in_float32_under_autocast(resolution):
    loss = SAMMaskLoss(**ALL_TERMS, resolution=resolution)
    rounded = batch(2)
    for name in ('low_res_logits', 'iou_predictions'):
        rounded[name] = rounded[name].bfloat16()
    exact = rounded | {
        name: rounded[name].float() for name in ('low_res_logits', 'iou_predictions')
    }
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = drawn_anew(loss, rounded)
    assert all(value.dtype == torch.float32 for value in losses.values())
    torch.testing.assert_close(losses, drawn_anew(loss, exact), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('term', 'resolution'),
    [
        *((term, 'low_res') for term in (*FUNCTIONS, 'boundary')),
        ('dice', 'points'),
        ('bce', 'input'),
    ],
)
def test_descent_finds_the_mask(term, resolution):
    arguments = batch(2, size=(SIDE, 20))
    arguments['target_masks'].zero_()[:, 4:20, 4:16] = 1
    arguments['low_res_logits'] *= 0.1
    arguments = with_gradient(arguments)
    optimizer = torch.optim.Adam([arguments['low_res_logits']], lr=0.2)
    loss = only(term, resolution=resolution)
    for _ in range(40):
        optimizer.zero_grad()
        total(loss(**arguments)).backward()
        optimizer.step()
    # the outline alone says nothing about what is far from it
    assert loss(**arguments)['train_iou'].min() > (0.5 if term == 'boundary' else 0.95)
