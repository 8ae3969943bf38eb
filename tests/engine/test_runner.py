import copy
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from tiny_sam import SquaredLogits, random_batch, segmentor_config
from torch import nn
from two_ranks import fork_two_ranks

from mmsam.engine import SAMRunner
from mmsam.errors import CheckpointError, ConfigError
from mmsam.registry import MODELS, RUNNERS
from mmsam.training_checkpoint import save_training_checkpoint

FCN = dict(
    type='mmseg.EncoderDecoder',
    backbone=dict(
        type='mmseg.UNet', base_channels=4, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1),
        dec_num_convs=(1,), downsamples=(True,), enc_dilations=(1, 1), dec_dilations=(1,),
    ),
    decode_head=dict(
        type='mmseg.FCNHead', in_channels=4, channels=4, in_index=1, num_convs=1, num_classes=2,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)  # fmt: skip


def make_runner(model: dict | nn.Module, folder: Path, name: str, **options) -> SAMRunner:
    return SAMRunner(
        model=model,
        work_dir=str(folder),
        default_scope='mmsam',
        experiment_name=f'test_runner_{name}',
        log_level='ERROR',
        **options,
    )


@pytest.mark.parametrize('config', [dict(work_dir='runs'), dict(work_dir='runs', model=None)])
def test_a_config_without_a_model(config):
    with pytest.raises(ConfigError, match=r'^model: expected .*, got none\.$'):
        SAMRunner.from_cfg(config)


@pytest.fixture(scope='module')
def sam(tmp_path_factory) -> SAMRunner:
    return make_runner(segmentor_config(64), tmp_path_factory.mktemp('sam'), 'sam')


@pytest.fixture(scope='module')
def fcn(tmp_path_factory) -> SAMRunner:
    return make_runner(FCN, tmp_path_factory.mktemp('fcn'), 'fcn')


def other_weights(runner: SAMRunner) -> dict[str, torch.Tensor]:
    return {key: torch.randn_like(v) for key, v in runner.model.state_dict().items()
            if v.is_floating_point()}  # fmt: skip


def test_it_is_the_registered_runner():
    assert RUNNERS.get('SAMRunner') is SAMRunner


def test_sam_loads_every_tensor(sam, tmp_path):
    weights = other_weights(sam)
    torch.save(weights, tmp_path / 'sam.pth')
    sam.load_checkpoint(str(tmp_path / 'sam.pth'))
    loaded = sam.model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())


@pytest.mark.parametrize('change', ['missing', 'unexpected', 'shape'])
@pytest.mark.trap(19)
def test_sam_refuses_what_does_not_fit(sam, tmp_path, change):
    weights = other_weights(sam)
    key = 'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix'
    if change == 'missing':
        del weights[key]
    elif change == 'unexpected':
        key = 'mask_decoder.extra.weight'
        weights[key] = torch.zeros(1)
    else:
        weights[key] = weights[key][:, :-1]
    torch.save(weights, tmp_path / 'sam.pth')
    before = copy.deepcopy(sam.model.state_dict())
    with pytest.raises(CheckpointError, match=key):
        sam.load_checkpoint(str(tmp_path / 'sam.pth'))
    assert all(torch.equal(v, before[k]) for k, v in sam.model.state_dict().items())


def test_other_models_load_as_in_mmengine(fcn, tmp_path):
    """A backbone's weights with prefix and without a head: what fits is loaded."""
    weights = other_weights(fcn)
    backbone = {f'module.{k}': v for k, v in weights.items() if k.startswith('backbone.')}
    torch.save(dict(state_dict=backbone), tmp_path / 'fcn.pth')
    before = copy.deepcopy(fcn.model.state_dict())
    fcn.load_checkpoint(str(tmp_path / 'fcn.pth'))
    for key, value in fcn.model.state_dict().items():
        expected = weights[key] if f'module.{key}' in backbone else before[key]
        assert torch.equal(value, expected), key


@pytest.mark.parametrize('model', ['sam', 'fcn'])
def test_a_missing_file(request, model, tmp_path):
    runner = request.getfixturevalue(model)
    with pytest.raises(CheckpointError, match='no.pth'):
        runner.load_checkpoint(str(tmp_path / 'no.pth'))


@pytest.mark.parametrize('model', ['sam', 'fcn'])
def test_resuming_from_mere_weights(request, model, tmp_path):
    runner = request.getfixturevalue(model)
    torch.save(dict(state_dict=runner.model.state_dict()), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='w.pth holds weights without .*--load-from'):
        runner.resume(str(tmp_path / 'w.pth'))


def test_a_truncated_file_of_another_model(fcn, tmp_path):
    path = tmp_path / 'half.pth'
    torch.save(fcn.model.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match='half.pth is truncated: ') as error:
        fcn.load_checkpoint(str(path))
    assert '\n' not in str(error.value)


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path('it_ran'),))


def test_resuming_from_a_file_with_code(sam, tmp_path, monkeypatch):
    """mmengine reads a file again without protection if the safe reading fails."""
    monkeypatch.chdir(tmp_path)
    checkpoint = dict(
        state_dict=sam.model.state_dict(), meta=RunsCode(), message_hub={}, optimizer={}
    )
    torch.save(checkpoint, tmp_path / 'bad.pth')
    monkeypatch.setattr(sam, '_resume', True)
    with pytest.raises(CheckpointError, match='bad.pth is refused'):
        sam.load_checkpoint(str(tmp_path / 'bad.pth'))
    assert not (tmp_path / 'it_ran').exists()


def test_a_single_process_is_not_wrapped(sam):
    assert type(sam.model).__name__ == 'SAMSegmentor'


def test_learning_rates_are_scaled_by_images_an_update():
    """3 processes x 2 images x 4 accumulated of a base of 8; all groups, and the logged rate."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [dict(params=model[0].parameters()), dict(params=model[1].parameters(), lr=0.01)]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=0.1), accumulative_counts=4)
    runner = SimpleNamespace(
        world_size=3,
        train_dataloader=SimpleNamespace(batch_size=2),
        logger=MMLogger.get_current_instance(),
    )
    for off in (None, dict(base_batch_size=8), dict(base_batch_size=8, enable=False)):
        SAMRunner.scale_lr(runner, wrapper, off)
        assert wrapper.get_lr()['lr'] == [0.1, 0.01]
    SAMRunner.scale_lr(runner, wrapper, dict(base_batch_size=8, enable=True))
    assert wrapper.get_lr()['lr'] == pytest.approx([0.3, 0.03])
    assert wrapper.get_lr()['base_lr'] == pytest.approx([0.3])


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm])
def test_what_another_number_of_ranks_changes(norm):
    """4 processes of 2 images become 1 of 8."""
    warnings = []
    runner = SimpleNamespace(
        world_size=1,
        train_dataloader=SimpleNamespace(batch_size=8),
        logger=SimpleNamespace(warning=warnings.append),
    )
    layer = norm(1, 4) if norm is nn.GroupNorm else norm(4)
    model = nn.ModuleDict({'conv': nn.Conv2d(3, 4, 1), 'norm': layer})
    SAMRunner._check_global_batch(runner, dict(world_size=4, batch_size=2), 'a.pth', model)
    (warning,) = warnings
    assert 'a.pth is of 4 processes, now there are 1' in warning
    layers = '1 BatchNorm layers (norm) normalise by the images of a process'
    assert (f'{layers}, which were 2 and are 8' in warning) == (norm is nn.BatchNorm2d)


# ---------------------------------------------------------------------------------- two ranks


class FirstRankOnly(SquaredLogits):
    """A loss that on every second step leaves the IoU head without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, **batch):
        losses = super().forward(**batch)
        self.calls += 1
        if self.calls % 2:
            losses['loss_iou'] = losses['loss_iou'].detach()
        return losses


@pytest.mark.trap(20)
def test_ranks_that_use_different_parts_stay_together(tmp_path):
    """Neither frozen nor unused parameters, nor a rank without prompts, make the other wait."""
    fork_two_ranks(train_as_one_of_two_ranks, tmp_path)
    for frozen in FROZEN:
        digests = {(tmp_path / f'{len(frozen)}_rank_{rank}').read_text() for rank in range(2)}
        assert len(digests) == 1, frozen
    for rank in range(2):
        latest = (tmp_path / f'goes_on_{rank}').read_text()
        assert latest == f'{tmp_path / "rank_0" / "iter_3.pth"} True'


FROZEN = (('image_encoder', 'prompt_encoder'), ())


def train_as_one_of_two_ranks(rank: int, folder: Path) -> None:
    os.environ['LOCAL_RANK'] = str(rank)  # as torchrun does
    for frozen in FROZEN:
        with DefaultScope.overwrite_default_scope('mmsam'):
            torch.manual_seed(rank)  # wrapping must make the ranks equal
            model = MODELS.build(segmentor_config(64, frozen=frozen))
        model.mask_loss = FirstRankOnly()
        model.mask_loss.calls = rank
        runner = make_runner(
            model, folder / 'run', f'rank_{rank}_{len(frozen)}', launcher='pytorch'
        )
        assert type(runner.model).__name__ == 'MMDistributedDataParallel'
        trained = [p for p in runner.model.parameters() if p.requires_grad]
        optim_wrapper = OptimWrapper(torch.optim.SGD(trained, lr=0.01))
        before = [parameter.clone() for parameter in trained]
        for step in range(3):
            counts = (2, 1) if (step + rank) % 2 else (0, 0)
            runner.model.train_step(
                random_batch([(40, 64), (64, 30)], counts, seed=step), optim_wrapper
            )
        assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))
        digest = hashlib.sha256()
        for _, value in sorted(runner.model.module.named_parameters()):
            digest.update(value.detach().numpy().tobytes())
        (folder / f'{len(frozen)}_rank_{rank}').write_text(digest.hexdigest())
    # as a shared folder of which the second machine does not see the latest files yet
    runner._work_dir = str(folder / f'rank_{rank}')
    if rank == 0:
        save_training_checkpoint({}, folder / 'rank_0' / 'iter_3.pth')
    runner.go_on_if_stopped(auto_resume=True)
    (folder / f'goes_on_{rank}').write_text(f'{runner._load_from} {runner._resume}')


class FullDiskHook(Hook):
    """Writes to a device on which no room is left, as Linux offers one."""

    def __init__(self, path: str) -> None:
        self.path = path

    def before_val(self, runner) -> None:
        Path(self.path).write_text('x')


@pytest.mark.bad_input(84)
def test_a_hook_without_room_on_the_disk_does_not_end_the_run(sam, monkeypatch):
    errors, called = [], []
    monkeypatch.setattr(sam.logger, 'error', errors.append)
    after = Hook()
    after.before_val = called.append
    monkeypatch.setattr(sam, '_hooks', [FullDiskHook('/dev/full'), after])
    sam.call_hook('before_val')
    (error,) = errors
    assert error.startswith('FullDiskHook cannot write: [Errno 28] No space left on device')
    assert called == [sam]


def test_other_errors_of_a_hook_end_it(sam, monkeypatch, tmp_path):
    monkeypatch.setattr(sam, '_hooks', [FullDiskHook(str(tmp_path / 'missing' / 'file'))])
    with pytest.raises(FileNotFoundError):
        sam.call_hook('before_val')
