"""Runs of several processes that are stopped and resumed, also with another number of processes."""

import signal
import socket
from pathlib import Path

import pytest
import torch
from tiny_run import (
    equal,
    finish,
    finish_after_signal,
    refused,
    run_here,
    start,
    train_records,
    weights_of,
    write_config,
)

from tools import train


@pytest.fixture(scope='module')
def config(data, tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp('config'), data)


def options(max_iters: int, batch_size: int) -> list[str]:
    return [
        '--no-validate', '--options', f'train_cfg.max_iters={max_iters}',
        f'train_dataloader.batch_size={batch_size}', 'default_hooks.checkpoint.interval=2',
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def run_ranks(config: Path, ranks: int, work_dir: Path, *args: object) -> None:
    """Train with ``ranks`` processes of one thread each."""
    process = start(
        'dist_train.sh', config, ranks, '--work-dir', work_dir, *args, cwd=work_dir.parent,
        PORT=str(free_port()),
    )  # fmt: skip
    done = finish(process)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def two_ranks(config, tmp_path_factory) -> Path:
    """The work dir of 4 iterations of two processes with 1 image each, saved at 2 and 4."""
    work_dir = tmp_path_factory.mktemp('two_ranks') / 'run'
    run_ranks(config, 2, work_dir, *options(4, 1))
    return work_dir


def test_two_ranks_go_on_bit_by_bit(two_ranks, config, tmp_path):
    run_ranks(
        config, 2, tmp_path / 'run', '--resume-from', two_ranks / 'iter_2.pth', *options(4, 1)
    )
    assert equal(weights_of(tmp_path / 'run' / 'iter_4.pth'), weights_of(two_ranks / 'iter_4.pth'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.bad_input(82)
def test_a_signal_to_the_launcher_saves_once_for_all_ranks(two_ranks, config, tmp_path, number):
    work_dir = tmp_path / 'run'
    args = ['dist_train.sh', config, 2, '--work-dir', work_dir, *options(4, 1)]
    process = start(*args, cwd=tmp_path, PORT=str(free_port()))
    done = finish_after_signal(process, 'Iter(train) [1/4]', number)
    assert done.returncode == 75, done.stderr
    assert done.stderr.count(f'StoppedError: {number.name}: stopped after iteration ') == 2
    last_line = done.stderr.splitlines()[-1]
    assert last_line == f'{number.name} has ended the job; what its ranks saved stands above.'
    assert not (work_dir / 'iter_4.pth').exists()
    run_ranks(config, 2, work_dir, '--resume', *options(4, 1))
    assert equal(weights_of(work_dir / 'iter_4.pth'), weights_of(two_ranks / 'iter_4.pth'))


def test_four_ranks_go_on_bit_by_bit(config, tmp_path):
    run_ranks(config, 4, tmp_path / 'straight', *options(4, 1))
    run_ranks(
        config, 4, tmp_path / 'resumed', '--resume-from', tmp_path / 'straight' / 'iter_2.pth',
        *options(4, 1),
    )  # fmt: skip
    final = [weights_of(tmp_path / name / 'iter_4.pth') for name in ('straight', 'resumed')]
    assert equal(*final)


def test_one_process_goes_on_where_two_stopped(two_ranks, config, tmp_path):
    """With the same number of images an iteration the data are the same; sums are rounded so."""
    run_here(
        train, config, '--work-dir', tmp_path, '--resume-from', two_ranks / 'iter_2.pth',
        *options(4, 2),
    )  # fmt: skip
    ours, theirs = weights_of(tmp_path / 'iter_4.pth'), weights_of(two_ranks / 'iter_4.pth')
    start_weights = weights_of(two_ranks / 'iter_2.pth')
    moved = max(float((theirs[key] - start_weights[key]).abs().max()) for key in theirs)
    apart = max(float((theirs[key] - ours[key]).abs().max()) for key in theirs)
    assert apart < 0.1 * moved
    assert list(train_records(tmp_path)) == [3, 4]


def test_another_number_of_images_an_iteration_is_refused(two_ranks, config, tmp_path, capsys):
    code, line = refused(
        capsys, train, config, '--work-dir', tmp_path, '--resume-from', two_ranks / 'iter_2.pth',
        *options(4, 1),
    )  # fmt: skip
    assert code == 4
    assert '2 images an iteration (2 processes of 1), now it would be 1 (1 of 1)' in line
    assert torch.load(two_ranks / 'iter_2.pth', weights_only=True)['meta']['world_size'] == 2
