import copy

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from tiny_sam import build_segmentor
from torch import nn

import mmsam.engine  # noqa: F401  (registers)
from mmsam.engine import BFloat16OptimWrapper, TrainableParamsConstructor
from mmsam.errors import ConfigError


def build(model: nn.Module, **options) -> OptimWrapper:
    config = dict(
        constructor='TrainableParamsConstructor',
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        **options,
    )
    with DefaultScope.overwrite_default_scope('mmsam'):
        return build_optim_wrapper(model, config)


PARAMWISE = dict(
    norm_decay_mult=0.0, bypass_duplicate=True, custom_keys={'mask_tokens': dict(lr_mult=0.1)}
)


@pytest.mark.parametrize('paramwise', [None, PARAMWISE], ids=['plain', 'paramwise'])
@pytest.mark.parametrize('frozen', [('image_encoder', 'prompt_encoder'), ('mask_decoder',), ()])
def test_exactly_the_trainable_parameters(frozen, paramwise):
    model = build_segmentor(64, frozen=frozen)
    groups = build(model, paramwise_cfg=paramwise).optimizer.param_groups
    assert all(group['params'] for group in groups)
    in_groups = [id(p) for group in groups for p in group['params']]
    trainable = [
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.split('.')[0] not in frozen
    ]
    assert sorted(in_groups) == sorted(trainable)


def test_paramwise_options_still_hold():
    model = build_segmentor(64)
    groups = build(model, paramwise_cfg=PARAMWISE).optimizer.param_groups
    of = {id(p): group for group in groups for p in group['params']}
    tokens = of[id(model.mask_decoder.mask_tokens.weight)]
    norm = of[id(model.mask_decoder.transformer.norm_final_attn.weight)]
    other = of[id(model.mask_decoder.iou_token.weight)]
    assert (tokens['lr'], other['lr']) == (0.1, 1.0)
    assert (norm['weight_decay'], other['weight_decay']) == (0.0, 0.1)


def test_the_constructor_alone_keeps_the_wrapper():
    constructor = TrainableParamsConstructor(
        dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    )
    wrapper = constructor(nn.Linear(2, 2))
    assert wrapper._accumulative_counts == 3


def make_wrapper(model: nn.Module, **options) -> BFloat16OptimWrapper:
    return BFloat16OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1), **options)


@pytest.mark.trap(12, 20)
def test_only_its_context_computes_in_bfloat16():
    model = nn.Linear(4, 4)
    wrapper = make_wrapper(model)
    x = torch.randn(2, 4)
    with wrapper.optim_context(model):
        assert model(x).dtype == torch.bfloat16
    assert model(x).dtype == torch.float32


def test_the_context_ends_with_an_error():
    model = nn.Linear(4, 4)
    with pytest.raises(ZeroDivisionError), make_wrapper(model).optim_context(model):
        raise ZeroDivisionError
    assert model(torch.randn(2, 4)).dtype == torch.float32


@pytest.mark.trap(12)
def test_parameters_and_gradients_stay_float32():
    model = nn.Linear(4, 4)
    before = copy.deepcopy(model.state_dict())
    wrapper = make_wrapper(model)
    with wrapper.optim_context(model):
        loss = model(torch.randn(2, 4)).float().square().mean()
    wrapper.backward(loss)
    assert model.weight.grad.dtype == torch.float32
    wrapper.step()
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before['weight'])


def test_accumulation_updates_every_second_time():
    model = nn.Linear(2, 1, bias=False)
    wrapper = make_wrapper(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    weights = []
    for _ in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 2)).float().sum()
        wrapper.update_params(loss)
        weights.append(model.weight.detach().clone())
    changed = [not torch.equal(a, b) for a, b in zip(weights, weights[1:], strict=False)]
    assert changed == [True, False, True]


def test_gradients_are_clipped():
    model = nn.Linear(2, 1, bias=False)
    wrapper = make_wrapper(model, clip_grad=dict(max_norm=0.5))
    with wrapper.optim_context(model):
        loss = model(torch.full((1, 2), 100.0)).float().sum()
    wrapper.backward(loss)
    wrapper.step()
    assert model.weight.grad.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_the_state_goes_on():
    """Two updates equal one, a saved and loaded state, and another."""
    torch.manual_seed(0)
    batches = torch.randn(2, 3, 4)
    model = nn.Linear(4, 1)
    restored = nn.Linear(4, 1)

    def update(module, wrapper, batch):
        with wrapper.optim_context(module):
            loss = module(batch).float().square().sum()
        wrapper.update_params(loss)

    wrapper = make_wrapper(model)
    update(model, wrapper, batches[0])
    restored.load_state_dict(model.state_dict())
    other = make_wrapper(restored)
    other.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    update(model, wrapper, batches[1])
    update(restored, other, batches[1])
    assert torch.equal(model.weight, restored.weight)
    assert wrapper.state_dict().keys() == OptimWrapper(wrapper.optimizer).state_dict().keys()


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError):
        make_wrapper(nn.Linear(1, 1), loss_scale='dynamic')


@pytest.mark.parametrize(
    'clip', [None, dict(max_norm=1.0), dict(type='value', clip_value=1.0)], ids=str
)
@pytest.mark.parametrize('wrapper', ['SAMOptimWrapper', 'BFloat16OptimWrapper'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_an_infinite_gradient_changes_nothing(bad, wrapper, clip):
    """The run with a bad batch in between ends where the run without it ends."""
    if bad == float('inf') and clip and 'type' in clip:
        pytest.skip('clipping by value makes infinity finite, as asked')
    finals = []
    for batches in ([1.0, 2.0, 3.0], [1.0, bad, 2.0, bad, 3.0]):
        model = nn.Linear(2, 1)
        nn.init.constant_(model.weight, 0.5)
        nn.init.constant_(model.bias, 0.0)
        config = dict(
            type=wrapper, optimizer=dict(type='AdamW', lr=0.1),
            **({} if clip is None else dict(clip_grad=dict(clip))),
        )  # fmt: skip
        with DefaultScope.overwrite_default_scope('mmsam'):
            optim_wrapper = build_optim_wrapper(model, config)
        skipped = []
        for batch in batches:
            optim_wrapper.update_params(model(torch.full((1, 2), batch)).square().sum())
            skipped.append(optim_wrapper.step_was_skipped)
        assert skipped == [batch == bad or batch != batch for batch in batches]
        finals.append((model.state_dict(), optim_wrapper.state_dict()['state']))
    (weights, state), (other_weights, other_state) = finals
    assert all(torch.equal(weights[key], other_weights[key]) for key in weights)
    for index, moments in state.items():
        for key, value in moments.items():
            assert torch.equal(value, other_state[index][key])


@pytest.mark.parametrize('wrapper', ['SAMOptimWrapper', 'BFloat16OptimWrapper'])
def test_a_loss_that_depends_on_nothing_that_trains(wrapper):
    model = nn.Linear(2, 1)
    with DefaultScope.overwrite_default_scope('mmsam'):
        optim_wrapper = build_optim_wrapper(
            model, dict(type=wrapper, optimizer=dict(type='SGD', lr=0.1))
        )
    masks = (model(torch.ones(1, 2)) > 0).float()
    with pytest.raises(ConfigError, match='depends on nothing that trains'):
        optim_wrapper.update_params((masks - 1).square().mean())
