import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from tiny_run import refused, run_here, write_config
from torch import nn

from mmsam.apis import check_annotation_memory, check_room, start_check
from mmsam.engine.hooks import SAMCheckpointHook
from mmsam.errors import LaunchError, StorageError
from tools import test, train

WEIGHTS = 4 * (1000 * 1000 + 1000)
FROZEN = 4 * 500 * 500
GIB = 2**30


class Lines:
    """A logger that keeps its warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)


def make_runner(work_dir, optimizer=None, hook=None, world_size=1, **config):
    """1.001 M weights that train, 0.25 M that do not."""
    model = nn.Module()
    model.trained = nn.Linear(1000, 1000)
    model.frozen = nn.Linear(500, 500, bias=False).requires_grad_(False)
    options = dict(interval=10, by_epoch=False, max_keep_ckpts=2) | (hook or {})
    return SimpleNamespace(
        model=model,
        work_dir=str(work_dir),
        hooks=[SAMCheckpointHook(**options)],
        cfg=Config(
            dict(
                optim_wrapper=dict(optimizer=optimizer or dict(type='AdamW', lr=0.1)),
                train_cfg=dict(by_epoch=False, max_iters=100),
                **config,
            )
        ),
        world_size=world_size,
        logger=Lines(),
    )


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Sets what the machine has: ``machine(disk=..., memory=..., shared=...)`` in bytes."""

    def have(disk=GIB, memory=GIB, shared=GIB):
        monkeypatch.setattr(start_check, 'available_memory', lambda: memory)
        monkeypatch.setattr(
            start_check.shutil,
            'disk_usage',
            lambda path: SimpleNamespace(free=shared if Path(path) == Path('/dev/shm') else disk),
        )

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    have()
    return have


@pytest.mark.parametrize(
    ('optimizer', 'states'),
    [
        (dict(type='AdamW', lr=0.1), 2),
        (dict(type='SGD', lr=0.1), 0),
        (dict(type='SGD', lr=0.1, momentum=0.9), 1),
    ],
)
@pytest.mark.bad_input(84)
def test_one_checkpoint_must_fit(tmp_path, machine, optimizer, states):
    size = WEIGHTS + FROZEN + states * WEIGHTS
    machine(disk=size)
    check_room(make_runner(tmp_path, optimizer))
    machine(disk=size - 1)
    with pytest.raises(StorageError, match='free, one checkpoint takes about') as caught:
        check_room(make_runner(tmp_path, optimizer))
    assert str(tmp_path) in str(caught.value)


def test_a_checkpoint_without_the_optimizer_is_smaller(tmp_path, machine):
    machine(disk=WEIGHTS + FROZEN)
    check_room(make_runner(tmp_path, hook=dict(save_optimizer=False)))


@pytest.mark.parametrize(
    ('hook', 'kept'),
    [({}, 2), (dict(max_keep_ckpts=-1), 10), (dict(max_keep_ckpts=-1, interval=-1), 1),
     (dict(save_best=['a', 'b'], rule='greater'), 4)],
)  # fmt: skip
def test_all_that_are_kept_should_fit(tmp_path, machine, hook, kept):
    needed = (kept + 1) * (3 * WEIGHTS + FROZEN)
    machine(disk=needed)
    runner = make_runner(tmp_path, hook=hook)
    check_room(runner)
    assert runner.logger.lines == []
    machine(disk=needed - 1)
    check_room(runner)
    (line,) = runner.logger.lines
    assert f'{kept} checkpoints of about 13 MB' in line and 'max_keep_ckpts' in line


def test_checkpoints_that_are_there_already_count_as_kept(tmp_path, machine):
    size = 3 * WEIGHTS + FROZEN
    machine(disk=size)
    with (tmp_path / 'iter_10.pth').open('wb') as file:
        file.truncate(2 * size)  # as large as the two that are kept
    runner = make_runner(tmp_path)
    check_room(runner)
    assert runner.logger.lines == []


def test_another_folder_for_the_checkpoints(tmp_path, machine):
    machine(disk=1)
    with pytest.raises(StorageError, match=f'{tmp_path}/not/there/yet has 0.0 MB free'):
        check_room(make_runner('no', hook=dict(out_dir=f'{tmp_path}/not/there/yet')))


@pytest.mark.parametrize(('world_size', 'copies'), [(1, 3), (2, 4)])
def test_gradients_and_optimizer_must_fit_in_memory(tmp_path, machine, world_size, copies):
    """One of gradients, two of Adam; with several processes DDP's buckets."""
    needed = copies * WEIGHTS
    machine(memory=2 * needed)
    runner = make_runner(tmp_path, world_size=world_size)
    check_room(runner)
    assert runner.logger.lines == []
    machine(memory=needed)
    check_room(runner)
    assert len(runner.logger.lines) == 1 and 'leaves little for the rest' in runner.logger.lines[0]
    machine(memory=needed - 1)
    with pytest.raises(LaunchError, match='1 process on .* need .* of memory, .* are available'):
        check_room(runner)


def test_every_process_of_the_machine_counts(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(
        start_check, 'all_gather_object', lambda host: [host, 'other', host, 'other']
    )
    machine(memory=2 * 4 * WEIGHTS - 1)
    with pytest.raises(LaunchError, match='of 2 processes on '):
        check_room(make_runner(tmp_path, world_size=4))


def test_on_gpus_they_are_not_in_this_memory(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    machine(memory=1)
    check_room(make_runner(tmp_path))


def loader(num_workers, masks, **options):
    pipeline = [dict(type='RandomObjects', max_objects=16)] if masks else []
    pipeline.append(dict(type='mmsam.ResizeLongestSide', image_size=1000))
    pipeline += [dict(type='DecodeObjectMasks')] if masks else []
    dataset = dict(type='BoxPromptDataset', pipeline=pipeline)
    return dict(batch_size=4, num_workers=num_workers, dataset=dataset, **options)


@pytest.mark.bad_input(86)
def test_batches_that_wait_should_fit_in_shared_memory(tmp_path, machine):
    """3 of the image and 16 of masks per px; twice as many batches wait as there are workers."""
    needed = 1000**2 * (3 * 2 * 4 * 19 + 5 * 4 * 3)
    runner = make_runner(
        tmp_path, train_dataloader=loader(3, True),
        val_dataloader=loader(1, False, prefetch_factor=5),
    )  # fmt: skip
    machine(shared=needed)
    check_room(runner)
    assert runner.logger.lines == []
    machine(shared=needed - 1)
    check_room(runner)
    (line,) = runner.logger.lines
    assert '--shm-size' in line and 'num_workers=0' in line and '516 MB' in line


def test_embeddings_that_wait_take_two_bytes_a_number(tmp_path, machine):
    """256 numbers for 16x16 px, in place of 3 bytes a px; masks as before."""
    needed = 1000**2 * (3 * 2 * 4 * (2 + 16) + 5 * 4 * 2)
    runner = make_runner(
        tmp_path, train_dataloader=loader(3, True),
        val_dataloader=loader(1, False, prefetch_factor=5), embedding_cache=dict(folder='x'),
    )  # fmt: skip
    runner.model.image_encoder = SimpleNamespace(out_chans=256)
    machine(shared=needed)
    check_room(runner)
    assert runner.logger.lines == []
    machine(shared=needed - 1)
    check_room(runner)
    assert len(runner.logger.lines) == 1


def test_no_workers_need_no_shared_memory(tmp_path, machine):
    machine(shared=0)
    runner = make_runner(
        tmp_path, train_dataloader=loader(0, True), val_dataloader=None,
        test_dataloader=loader(4, False),
    )  # fmt: skip
    check_room(runner)
    assert runner.logger.lines == []


def test_the_estimate_is_the_size_of_a_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.undo()
    estimated = []
    original = start_check.checkpoint_bytes
    monkeypatch.setattr(
        start_check, 'checkpoint_bytes',
        lambda *args: estimated.append(original(*args)) or estimated[0],
    )  # fmt: skip
    config = write_config(tmp_path, data, max_iters=1)
    run_here(train, config, '--no-validate', '--work-dir', tmp_path / 'run')
    written = (tmp_path / 'run' / 'iter_1.pth').stat().st_size
    assert 0.7 * written < estimated[0] < written  # small tensors have large headers


def test_a_run_without_room_does_not_begin(data, tmp_path, machine, capsys):
    machine(disk=1000)
    code, line = refused(
        capsys, train, write_config(tmp_path, data), '--work-dir', tmp_path / 'run'
    )
    assert code == 6 and line.startswith(f'StorageError: {tmp_path / "run"} has 0.0 MB free')
    assert not list((tmp_path / 'run').glob('*.pth'))


# ------------------------------------------------------------------------------------ annotations


def loaders(folder, *sizes):
    """Data loaders whose COCO files have these bytes, and the keys of the loaders."""
    config = {}
    for number, size in enumerate(sizes):
        (folder / f'{number}.json').write_bytes(b' ' * size)
        dataset = dict(data_root=str(folder), reader=dict(type='coco', ann_file=f'{number}.json'))
        config[f'loader_{number}'] = dict(dataset=dataset)
    return Config(config), tuple(config)


@pytest.mark.bad_input(41)
def test_the_largest_annotation_file_must_fit_in_memory(tmp_path, machine):
    config, keys = loaders(tmp_path, 500, 2_000_000, 1_500_000)
    machine(memory=3 * 2_000_000)
    check_annotation_memory(config, keys)
    machine(memory=3 * 2_000_000 - 1)
    with pytest.raises(LaunchError) as caught:
        check_annotation_memory(config, keys)
    assert f'{tmp_path}/1.json has 2.0 MB, 1 process on ' in str(caught.value)
    assert 'at least 6.0 MB of memory to read it, 6.0 MB are available' in str(caught.value)
    check_annotation_memory(config, keys[:1])


@pytest.mark.bad_input(41)
def test_reading_annotations_may_need_nearly_all_memory(tmp_path, machine, monkeypatch):
    lines = []
    monkeypatch.setattr(start_check, 'print_log', lambda text, **options: lines.append(text))
    config, keys = loaders(tmp_path, 1_000_000)
    machine(memory=10_000_000)  # 8 MB are 0.8 of it
    check_annotation_memory(config, keys)
    assert lines == []
    machine(memory=9_990_000)
    check_annotation_memory(config, keys)
    assert len(lines) == 1 and '0.json has 1.0 MB, 1 process on ' in lines[0]
    assert 'may need 8.0 MB of memory' in lines[0]


@pytest.mark.bad_input(41)
def test_every_process_of_the_machine_reads_the_annotations(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(
        start_check, 'all_gather_object',
        lambda one: [one, 'other', one] if isinstance(one, str) else [one],
    )  # fmt: skip
    config, keys = loaders(tmp_path, 1_000_000)
    machine(memory=2 * 3 * 1_000_000 - 1)
    with pytest.raises(LaunchError, match='2 processes on .* need at least 6.0 MB'):
        check_annotation_memory(config, keys)


def test_no_memory_is_asked_for_other_data(tmp_path, machine):
    machine(memory=0)
    config = Config(
        dict(
            train_dataloader=dict(dataset=dict(type='BaseSegDataset', ann_file='train.txt')),
            val_dataloader=None,
        )
    )
    check_annotation_memory(config, ('train_dataloader', 'val_dataloader', 'test_dataloader'))


@pytest.mark.bad_input(41)
@pytest.mark.parametrize('tool', [train, test])
def test_annotations_are_measured_before_they_are_read(data, tmp_path, machine, capsys, tool):
    root = tmp_path / 'broken'
    shutil.copytree(data, root)
    for path in root.glob('*.json'):
        path.write_text('no JSON')
    (tmp_path / 'weights.pth').touch()
    machine(memory=20)
    arguments = [write_config(tmp_path, root), '--work-dir', tmp_path / 'run']
    arguments += [tmp_path / 'weights.pth'] if tool is test else []
    code, line = refused(capsys, tool, *arguments)
    assert code == 5 and 'need at least 0.0 MB of memory to read it' in line
