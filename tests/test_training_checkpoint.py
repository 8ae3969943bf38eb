import hashlib
import multiprocessing
import os
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsam.errors import CheckpointError, StorageError
from mmsam.training_checkpoint import (
    check_training_checkpoint,
    latest_training_checkpoint,
    name_latest,
    plain_data,
    read_training_checkpoint,
    remove_training_checkpoint,
    save_training_checkpoint,
    training_checkpoints,
)

KILLS = 200 if os.environ.get('MMSAM_FAULTS') == 'full' else 20
"""Of the process that saves; full in make test-faults."""


def content(value: float = 1.0, **meta) -> dict:
    return {
        'meta': {'iter': 3, 'seed': None, 'classes': ('a', 'b'), **meta},
        'state_dict': {'weight': torch.full((50, 50), value)},
        'message_hub': {'log_scalars': {'loss': {'data': (np.arange(3.0), np.ones(3))}}},
        'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'lr': np.float64(0.5)},
    }


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_round_trip(tmp_path):
    path = tmp_path / 'iter_3.pth'
    save_training_checkpoint(content(), path)
    read = read_training_checkpoint(path)
    assert read['meta'] == content()['meta']
    assert torch.equal(read['state_dict']['weight'], torch.ones(50, 50))
    data, counts = read['message_hub']['log_scalars']['loss']['data']
    assert data.tolist() == [0, 1, 2] and counts.tolist() == [1, 1, 1]
    assert read['optimizer']['lr'] == 0.5 and type(read['optimizer']['lr']) is float
    assert read['optimizer']['state'][0]['step'] == 3


def test_any_tool_opens_it_without_leave_to_run_code(tmp_path):
    save_training_checkpoint(content(), tmp_path / 'iter_3.pth')
    opened = torch.load(tmp_path / 'iter_3.pth', weights_only=True)
    assert opened.keys() == content().keys()


def test_the_digest_is_what_sha256sum_takes(tmp_path):
    path = tmp_path / 'iter_3.pth'
    save_training_checkpoint(content(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / 'iter_3.pth.sha256').read_text() == f'{digest}  iter_3.pth\n'


@pytest.mark.parametrize('with_digest', [True, False])
@pytest.mark.bad_input(51)
def test_a_flipped_bit_is_found_anywhere(tmp_path, with_digest):
    """With the digest in every byte; without it in every byte of a tensor."""
    path = tmp_path / 'iter_3.pth'
    save_training_checkpoint(content(), path)
    whole = path.read_bytes()
    start = whole.index(torch.ones(50).numpy().tobytes())
    positions = range(0, len(whole), 997) if with_digest else range(start, start + 10000, 997)
    if not with_digest:
        (tmp_path / 'iter_3.pth.sha256').unlink()
    for position in positions:
        flip(path, position)
        with pytest.raises(CheckpointError, match='iter_3.pth is damaged'):
            check_training_checkpoint(path)
        path.write_bytes(whole)
    check_training_checkpoint(path)


@pytest.mark.parametrize('with_digest', [True, False])
@pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
def test_a_cut_file(tmp_path, share, with_digest):
    path = tmp_path / 'iter_3.pth'
    save_training_checkpoint(content(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    if not with_digest:
        (tmp_path / 'iter_3.pth.sha256').unlink()
    with pytest.raises(CheckpointError, match='iter_3.pth is (damaged|truncated|empty)'):
        read_training_checkpoint(path)


def test_mere_weights_and_no_file(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='without the state of a run: .* --load-from'):
        read_training_checkpoint(tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='no.pth: no such file'):
        read_training_checkpoint(tmp_path / 'no.pth')


def test_plain_data_is_plain():
    value = OrderedDict(
        a=np.float32(1.5), b=[np.int64(2), (True, None, 'x')], c=np.array([1, 2], np.int32),
        d={3: torch.nn.Parameter(torch.ones(2))},
    )  # fmt: skip
    plain = plain_data(value, 'it')
    assert type(plain) is dict
    assert plain['a'] == 1.5 and type(plain['a']) is float
    assert plain['b'] == [2, (True, None, 'x')] and type(plain['b'][0]) is int
    assert plain['b'][1][0] is True
    assert torch.equal(plain['c'], torch.tensor([1, 2], dtype=torch.int32))
    assert not plain['d'][3].requires_grad


@pytest.mark.parametrize('value', [object(), {1, 2}, np.array(['a']), lambda: 0, b'x'])
def test_what_is_not_plain_is_named(value):
    with pytest.raises(CheckpointError, match=r"it\['meta'\]\[1\] is a "):
        plain_data({'meta': [0, value]}, 'it')


def test_a_failed_write_keeps_the_old_one_usable(tmp_path, monkeypatch):
    path = tmp_path / 'iter_3.pth'
    save_training_checkpoint(content(1), path)
    original = torch.save

    def half(value, target):
        original(value, target)
        Path(target).write_bytes(Path(target).read_bytes()[:100])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', half)
    with pytest.raises(StorageError, match='No space left'):
        save_training_checkpoint(content(2), path)
    assert read_training_checkpoint(path)['state_dict']['weight'][0, 0] == 1


# ------------------------------------------------------------------------------- the latest one


@pytest.fixture
def run(tmp_path) -> Path:
    """Checkpoints of iterations 3, 6 and 10; ``last_checkpoint`` names 10."""
    for number in (3, 6, 10):
        path = tmp_path / f'iter_{number}.pth'
        save_training_checkpoint(content(number), path)
        name_latest(tmp_path, path)
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_latest_first_by_number(run):
    assert names(training_checkpoints(run)) == ['iter_10.pth', 'iter_6.pth', 'iter_3.pth']
    assert latest_training_checkpoint(run).name == 'iter_10.pth'
    assert (run / 'last_checkpoint').read_text() == 'iter_10.pth'


def test_the_pointer_goes_first(run):
    """Higher numbers are of an earlier run in the same folder."""
    name_latest(run, run / 'iter_6.pth')
    assert names(training_checkpoints(run)) == ['iter_6.pth', 'iter_3.pth']
    flip(run / 'iter_6.pth', 2000)
    assert latest_training_checkpoint(run).name == 'iter_3.pth'


def test_best_and_exported_weights_are_no_checkpoints_to_go_on_from(run):
    for name in ('best_sam_mIoU_iter_12.pth', 'sam_tuned.pth'):
        save_training_checkpoint(content(), run / name)
    assert names(training_checkpoints(run)) == ['iter_10.pth', 'iter_6.pth', 'iter_3.pth']


@pytest.mark.parametrize('pointer', ['/gone/iter_6.pth', 'iter_99.pth', '', '\0'])
@pytest.mark.bad_input(65)
def test_a_pointer_to_elsewhere(run, pointer):
    """A moved folder with mmengine's absolute path; a file that is gone; rubbish."""
    (run / 'last_checkpoint').write_text(pointer)
    expected = 'iter_6.pth' if 'iter_6' in pointer else 'iter_10.pth'
    earlier = ['iter_3.pth'] if 'iter_6' in pointer else ['iter_6.pth', 'iter_3.pth']
    assert names(training_checkpoints(run)) == [expected, *earlier]


def test_a_damaged_latest_is_named_and_the_one_before_is_used(run, monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmsam.training_checkpoint.print_log', lambda message, **_: logged.append(message)
    )
    flip(run / 'iter_10.pth', 2000)
    flip(run / 'iter_6.pth', 2000)
    assert latest_training_checkpoint(run).name == 'iter_3.pth'
    assert len(logged) == 2
    assert 'iter_10.pth is damaged' in logged[0] and 'iter_6.pth is damaged' in logged[1]


def test_all_damaged(run):
    for path in training_checkpoints(run):
        path.write_bytes(b'')
    with pytest.raises(CheckpointError, match='no checkpoint .*iter_10.*iter_6.*iter_3'):
        latest_training_checkpoint(run)


def test_none(tmp_path):
    assert latest_training_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ('damaged', 'expected'), [([], 'iter_6.pth'), ([6], 'iter_3.pth'), ([3, 6], None)]
)
def test_the_latest_of_a_slurm_job(tmp_path, damaged, expected):
    """Job 2 saved 3 and 6 where job 1 had left 4 and 10; it may be killed before it names one."""
    for number, job in ((4, '1'), (10, '1'), (3, '2'), (6, '2')):
        save_training_checkpoint(content(slurm_job=job), tmp_path / f'iter_{number}.pth')
    assert latest_training_checkpoint(tmp_path, slurm_job='3') is None
    for number in damaged:
        flip(tmp_path / f'iter_{number}.pth', 2000)
    for named in (6, 10):
        name_latest(tmp_path, tmp_path / f'iter_{named}.pth')
        if expected is None:
            with pytest.raises(CheckpointError, match='that is whole: .*iter_6.* damaged'):
                latest_training_checkpoint(tmp_path, slurm_job='2')
        else:
            assert latest_training_checkpoint(tmp_path, slurm_job='2').name == expected
    assert latest_training_checkpoint(tmp_path, slurm_job='1').name == 'iter_10.pth'


def test_removing(run):
    remove_training_checkpoint(run / 'iter_3.pth')
    remove_training_checkpoint(run / 'iter_3.pth')
    assert not list(run.glob('iter_3*'))


# ------------------------------------------------------------------------------- kill -9


def save_without_end(folder: Path, number: int) -> None:
    torch.set_num_threads(1)
    while True:
        number += 1
        path = folder / f'iter_{number % 3}.pth'
        state = {'weight': torch.full((1500, 1500), float(number))}
        save_training_checkpoint(
            {'meta': {'iter': number}, 'state_dict': state, 'message_hub': {}, 'optimizer': {}},
            path,
        )
        name_latest(folder, path)


def written_at(folder: Path) -> int:
    """When the latest checkpoint was named, 0 if there is none."""
    path = folder / 'last_checkpoint'
    return path.stat().st_mtime_ns if path.exists() else 0


def test_kill_9_at_any_moment_leaves_one_to_go_on_from(tmp_path):
    """A process saves without end under three names, 9 MB each, until it is killed."""
    random = np.random.default_rng(0)
    number = 0
    for _ in range(KILLS):
        saver = multiprocessing.get_context('fork').Process(
            target=save_without_end, args=(tmp_path, number), daemon=True
        )
        before = written_at(tmp_path)
        saver.start()
        while written_at(tmp_path) == before and saver.is_alive():
            time.sleep(0.01)  # a loaded machine may take long to save the first one
        time.sleep(random.uniform(0, 0.3))
        saver.kill()
        saver.join()
        found = read_training_checkpoint(latest_training_checkpoint(tmp_path))
        assert found['state_dict']['weight'].eq(found['meta']['iter']).all()
        assert found['meta']['iter'] >= number, 'an older one than before'
        number = found['meta']['iter']
    assert number >= KILLS
