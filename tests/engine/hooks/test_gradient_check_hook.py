from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from tiny_run import refused, write_config
from torch import nn
from toy_parts import TwoParts, log_of, train_parts
from two_ranks import fork_two_ranks

from mmsam.errors import ConfigError
from mmsam.registry import MODELS
from mmsam.structures import SAMDataSample
from tools import train

CHECK = dict(type='GradientCheckHook')
ONE_OBJECT = SAMDataSample(gt_instances=InstanceData(labels=torch.zeros(1)))


class DetachedFeatures(TwoParts):
    """The encoder is left out of the graph, as an adapter that runs under ``no_grad``."""

    def features_of(self, images):
        return super().features_of(images).detach()


class CancelledFeatures(TwoParts):
    """The encoder is in the graph; its gradient is exactly 0."""

    def features_of(self, images):
        return images.new_ones(1, 8) + 0 * super().features_of(images)


class TutorialLoss(TwoParts):
    """``MSE(normalize(threshold(logits, 0, 0)), mask)`` of a widespread tutorial.

    Here on logits about 1 of an object that is nowhere; three columns of them, as the gradient is
    exactly 0 where the mean is one over a power of 2.
    """

    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.decoder['head'].bias, 1.0)

    def loss_of(self, logits, objects):
        masks = F.normalize(F.threshold(logits[..., :3], 0.0, 0))
        return F.mse_loss(masks, torch.zeros_like(masks))


def updates_of(work_dir: Path) -> int:
    """Iterations that were done and saved."""
    return len(list(work_dir.glob('iter_*.pth')))


def test_what_arrives_is_said_once(tmp_path):
    train_parts(tmp_path, TwoParts(), CHECK)
    log = log_of(tmp_path)
    assert log.count('Gradients arrive in') == 1
    assert (
        'Gradients arrive in decoder, encoder; 2 of 6 parameters that train got none from this '
        'batch: decoder.spare.weight, decoder.spare.bias.'
    ) in log
    assert updates_of(tmp_path) == 3


@pytest.mark.parametrize('model', [DetachedFeatures, CancelledFeatures])
@pytest.mark.trap(11)
def test_a_part_without_gradient_is_named(tmp_path, model):
    with pytest.raises(ConfigError, match=r'but encoder got none after .* \(iteration 1\)') as end:
        train_parts(tmp_path, model(), CHECK)
    assert end.value.exit_code == 2
    assert updates_of(tmp_path) == 0


def test_a_frozen_part_needs_none(tmp_path):
    model = DetachedFeatures()
    model.encoder.requires_grad_(False)
    train_parts(tmp_path, model, CHECK)
    assert 'Gradients arrive in decoder; ' in log_of(tmp_path)


def test_a_part_of_one_parameter_counts(tmp_path):
    model = TwoParts()
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(ConfigError, match='but scale got none'):
        train_parts(tmp_path, model, CHECK)


def test_rounding_errors_are_no_gradient(tmp_path):
    """The tutorial's loss has a gradient that is not quite 0, and learns nothing from it."""
    model = TutorialLoss()
    model([torch.ones(3)], [ONE_OBJECT])['loss'].backward()
    assert 0 < model.decoder['head'].weight.grad.norm() < 1e-6
    model.zero_grad()
    with pytest.raises(ConfigError, match=r'\(iteration 1\), which are rounding errors'):
        train_parts(tmp_path, model, CHECK)
    assert updates_of(tmp_path) == 0


def test_batches_without_objects_are_waited_out(tmp_path):
    with pytest.raises(ConfigError, match=r'encoder got none .* \(iteration 3\)'):
        train_parts(tmp_path, DetachedFeatures(), CHECK, objects=(0, 0, 1, 1))
    assert updates_of(tmp_path) == 2


def test_a_run_without_any_object_is_told(tmp_path):
    train_parts(tmp_path, DetachedFeatures(), CHECK, objects=(0, 0))
    assert 'Gradients were not checked: no batch had an object.' in log_of(tmp_path)


@pytest.mark.parametrize(
    'options',
    [
        dict(accumulative_counts=2),
        dict(clip_grad=dict(max_norm=1e-9)),
        dict(type='BFloat16OptimWrapper'),
        dict(optimizer=dict(type='SGD', lr=0.1)),
    ],
    ids=['accumulation', 'clipped to almost nothing', 'bfloat16', 'SGD'],
)
def test_however_the_update_is_made(tmp_path, options):
    train_parts(tmp_path / 'good', TwoParts(), CHECK, **options)
    assert log_of(tmp_path / 'good').count('Gradients arrive in decoder, encoder') == 1
    with pytest.raises(ConfigError, match=r'but encoder got none .* \(iteration 1\)'):
        train_parts(tmp_path / 'bad', DetachedFeatures(), CHECK, **options)


def test_a_resumed_run_is_checked_again(tmp_path):
    train_parts(tmp_path, TwoParts(), CHECK)
    with pytest.raises(ConfigError, match=r'but encoder got none .* \(iteration 4\)'):
        train_parts(tmp_path, DetachedFeatures(), CHECK, objects=(1,) * 5, resume=True)


def check_on_a_rank(rank: int, folder: Path) -> None:
    # rank 0 gets the images of odd number, and no object in the first iteration
    objects = (0, 1, 1, 1)
    train_parts(folder / 'good', TwoParts(), CHECK, objects=objects)
    words = 'no error'
    try:
        train_parts(folder / 'bad', DetachedFeatures(), CHECK, objects=objects)
    except ConfigError as error:
        words = str(error)
    (folder / f'rank_{rank}').write_text(words)


def test_one_rank_with_objects_is_enough(tmp_path):
    fork_two_ranks(check_on_a_rank, tmp_path)
    words = {(tmp_path / f'rank_{rank}').read_text() for rank in range(2)}
    assert len(words) == 1 and 'but encoder got none' in words.pop()
    assert log_of(tmp_path / 'good').count('Gradients arrive in decoder, encoder') == 1


class ThresholdedMSE(nn.Module):
    """The tutorial's loss in the slot of a segmentor."""

    def forward(self, *, low_res_logits, iou_predictions, target_masks, input_sizes):
        logits = F.interpolate(low_res_logits, target_masks.shape[-2:], mode='bilinear')
        masks = F.normalize(F.threshold(logits, 0.0, 0))
        return {'loss_mse': (masks - target_masks[:, None]).square().mean((1, 2, 3))}


@pytest.mark.trap(1)
def test_the_tutorials_loss_is_refused_in_the_first_iteration(data, tmp_path, capsys):
    hooks = [CHECK, dict(type='MaskLossHook', loss=dict(type='ThresholdedMSE'))]
    config = write_config(tmp_path, data, extra=f'custom_hooks = {hooks}')
    MODELS.register_module(module=ThresholdedMSE)
    try:
        code, words = refused(
            capsys, train, config, '--no-validate', '--work-dir', tmp_path / 'run'
        )
    finally:
        MODELS._module_dict.pop('ThresholdedMSE')
    assert code == 2
    assert 'Expected a gradient' in words and '(iteration 1)' in words
