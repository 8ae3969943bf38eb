import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from tiny_run import assert_equal, run_here, train_records, weights_of, write_config
from tiny_sam import TINY_ARCH, build_segmentor
from torch import nn

from mmsam.errors import ConfigError
from mmsam.models import SAMBackbone
from tools import train


def build(model: nn.Module, **options) -> OptimWrapper:
    config = dict(
        dict(
            constructor='LayerDecayConstructor',
            paramwise_cfg=dict(decay_rate=0.5),
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        ),
        **options,
    )
    with DefaultScope.overwrite_default_scope('mmsam'):
        return build_optim_wrapper(model, config)


def settings(model: nn.Module, wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter in the optimizer, by name."""
    of = {
        id(parameter): (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    named = {name: of.pop(id(p)) for name, p in model.named_parameters() if id(p) in of}
    assert not of
    return named


def expected_rate(name: str) -> float:
    """Of an encoder with two blocks, at a rate of 1/2."""
    by_prefix = {
        'image_encoder.patch_embed.': 1 / 8,
        'image_encoder.pos_embed': 1 / 8,
        'image_encoder.blocks.0.': 1 / 4,
        'image_encoder.blocks.1.': 1 / 2,
        'image_encoder.neck.': 1,
        'prompt_encoder.': 1,
        'mask_decoder.': 1,
    }
    (rate,) = (rate for prefix, rate in by_prefix.items() if name.startswith(prefix))
    return rate


WITHOUT_DECAY = (
    'bias',
    'norm',
    'pos_embed',
    'rel_pos',
    '_embed.weight',
    'point_embed',
    'iou_token',
    'mask_tokens',
)
"""In the names; with the two norms of convolutions, which stand in lists."""

NORMS_IN_LISTS = ('neck.1', 'neck.3', 'mask_downscaling.1', 'mask_downscaling.4', 'upscaling.1')


def test_every_learning_rate_by_hand():
    model = build_segmentor(64, frozen=())
    got = settings(model, build(model))
    assert got.keys() == {name for name, _ in model.named_parameters()}
    for name, (rate, decay) in got.items():
        assert rate == expected_rate(name), name
        bare = any(part in name for part in (*WITHOUT_DECAY, *NORMS_IN_LISTS))
        bare &= 'patch_embed.proj.weight' not in name
        assert decay == (0.0 if bare else 0.1), name


def test_a_group_for_each_rate_and_decay():
    groups = build(build_segmentor(64, frozen=())).optimizer.param_groups
    pairs = [(group['lr'], group['weight_decay']) for group in groups]
    assert sorted(pairs) == [(rate, wd) for rate in (1 / 8, 1 / 4, 1 / 2, 1) for wd in (0, 0.1)]


FIRST_LAYERS = tuple(f'image_encoder.{name}' for name in ('patch_embed.', 'pos_embed', 'blocks.0.'))


def test_what_is_frozen_is_left_out():
    model = build_segmentor(64)  # only the decoder trains
    got = settings(model, build(model))
    assert {name.split('.')[0] for name in got} == {'mask_decoder'}
    assert {rate for rate, _ in got.values()} == {1.0}
    # the layers stay where they are when the first ones are frozen
    model = build_segmentor(64, frozen=(), encoder=dict(frozen_stages=1))
    got = settings(model, build(model))
    assert got['image_encoder.blocks.1.attn.qkv.weight'] == (0.5, 0.1)
    assert not any(name.startswith(FIRST_LAYERS) for name in got)


def test_the_backbone_of_an_mmseg_model():
    model = nn.ModuleDict(dict(backbone=SAMBackbone(TINY_ARCH, 64), decode_head=nn.Linear(2, 2)))
    got = settings(model, build(model))
    assert got['backbone.pos_embed'] == (1 / 8, 0.0)
    assert got['backbone.blocks.1.mlp.lin1.weight'] == (1 / 2, 0.1)
    assert got['decode_head.weight'] == (1.0, 0.1)


def test_without_weight_decay_in_the_config():
    model = build_segmentor(64, frozen=())
    wrapper = build(model, optimizer=dict(type='Adam', lr=1.0))
    assert {decay for _, decay in settings(model, wrapper).values()} == {0.0}


@pytest.mark.parametrize(
    'paramwise',
    [None, {}, dict(decay=0.8), dict(decay_rate=0), dict(decay_rate=1.1), dict(decay_rate='0.8'),
     dict(decay_rate=0.8, norm_decay_mult=0.0)],
    ids=str,
)  # fmt: skip
def test_other_options_are_refused(paramwise):
    with pytest.raises(ConfigError, match='with 0 < r <= 1, got'):
        build(build_segmentor(64), paramwise_cfg=paramwise)


def test_without_a_learning_rate():
    with pytest.raises(ConfigError, match='expected an lr'):
        build(build_segmentor(64), optimizer=dict(type='AdamW'))


def test_without_blocks():
    with pytest.raises(ConfigError, match='got Linear without'):
        build(nn.Linear(2, 2))


DECAY = """
optim_wrapper = dict(constructor='LayerDecayConstructor', paramwise_cfg=dict(decay_rate=0.5))
auto_scale_lr = dict(base_batch_size=1)
custom_hooks = [
    dict(type='MaskLossHook', loss=dict(type='SAMMaskLoss')),
]
"""


def test_scaled_rates_go_on_after_a_resume(data, tmp_path):
    """Stopped after two of four iterations; of two images, with rates for one."""
    config = write_config(tmp_path, data, max_iters=4, extra=DECAY)
    args = [config, '--no-validate', '--auto-scale-lr', '--options', 'param_scheduler=[]']
    run_here(train, *args[:3], '--work-dir', tmp_path / 'whole')
    run_here(
        train, *args[:3], '--work-dir', tmp_path / 'rest',
        '--resume-from', tmp_path / 'whole' / 'iter_2.pth',
    )  # fmt: skip
    whole, rest = (tmp_path / run / 'iter_4.pth' for run in ('whole', 'rest'))
    assert_equal(weights_of(whole), weights_of(rest))
    assert_equal(*(torch.load(path, weights_only=True)['optimizer'] for path in (whole, rest)))
    rates = {
        group['initial_lr']
        for group in torch.load(whole, weights_only=True)['optimizer']['param_groups']
    }
    assert rates == {3e-3 / 8, 3e-3 / 4, 3e-3 / 2, 3e-3}  # 1.5e-3 of the schedule, doubled
    assert train_records(tmp_path / 'rest').keys() == {3, 4}
