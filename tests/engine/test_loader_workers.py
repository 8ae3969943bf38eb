"""Real workers that fail, are killed, or hang."""

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import time

import pytest
from processes import is_alive, wait_until
from torch.utils.data import DataLoader, Dataset

from mmsam import stop_signal
from mmsam.engine import SAMRunner
from mmsam.engine.loader_workers import kill_workers, worker_failures
from mmsam.errors import ConfigError, DataError


class Faulty(Dataset):
    """Numbers; sample 2 does what ``fault`` does."""

    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            self.fault()
        return index


def fail():
    try:
        {}['key']
    except KeyError as error:
        raise DataError('Image a.png has no key: it is empty.') from error


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    while True:
        time.sleep(1)


def read_all(fault, num_workers=1, **options) -> None:
    with worker_failures():
        list(DataLoader(Faulty(fault), num_workers=num_workers, **options))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_the_words_of_an_error_stay_its_own(num_workers):
    with pytest.raises(DataError) as raised:
        read_all(fail, num_workers)
    assert str(raised.value) == 'Image a.png has no key: it is empty.'
    if num_workers:  # what --debug shows has the worker's traceback
        assert "KeyError: 'key'" in str(raised.value.__cause__)


@pytest.mark.bad_input(87)
def test_a_killed_worker():
    with pytest.raises(DataError) as raised:
        read_all(be_killed)
    assert re.fullmatch(
        r'A worker of a data loader was killed \(DataLoader worker \(pid \d+\) is killed by '
        r'signal: (Killed|SIGKILL); \d+\.\d GB of memory and \d+\.\d GB of /dev/shm are '
        r'available\): .*\.',
        str(raised.value),
    )


@pytest.mark.bad_input(88)
def test_a_worker_that_hangs_is_not_waited_for():
    with pytest.raises(DataError) as raised:
        read_all(hang, timeout=3)
    assert str(raised.value).startswith('No batch came from the workers of a data loader for 3 s: ')
    end = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize('error', [RuntimeError('DataLoader'), ValueError(), ConfigError('no')])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as raised, worker_failures():
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ('options', 'seconds'),
    [(dict(num_workers=1), 600), (dict(num_workers=1, timeout=7), 7), (dict(num_workers=0), 0)],
)
def test_the_time_limit_of_a_loader(options, seconds):
    config = dict(dataset=[1, 2], sampler=dict(type='DefaultSampler', shuffle=False), **options)
    assert SAMRunner.build_dataloader(config).timeout == seconds


# ------------------------------------------------------------- signals that ask the run to end


class Signalled(Dataset):
    """Numbers; each worker gets each of the signals, from another process, before each sample."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        for name in ('TERM', 'USR1', 'INT'):
            # torch's workers forgive a SIGTERM of their own parent
            subprocess.run(['kill', f'-{name}', str(os.getpid())], check=True)
        return index


def loader_of_a_run(dataset, **options) -> DataLoader:
    config = dict(dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False))
    return SAMRunner.build_dataloader(
        {**config, 'num_workers': 2, 'collate_fn': dict(type='default_collate'), **options}, seed=0
    )


@pytest.fixture
def listening():
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    stop_signal.listen()
    yield
    kill_workers()
    stop_signal.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.bad_input(81)
@pytest.mark.parametrize('options', [{}, {'persistent_workers': True}], ids=str)
def test_workers_ignore_what_their_run_follows(listening, monkeypatch, options):
    # as multiprocessing itself undoes it where workers are spawned
    monkeypatch.setattr(stop_signal, 'held_back', contextlib.nullcontext)
    loader = loader_of_a_run(Signalled(), **options)
    for _ in range(2):
        assert [int(batch) for batch in loader] == list(range(8))


def test_a_signal_while_workers_start(listening, monkeypatch):
    ignore = stop_signal.ignore

    def ignore_too_late():
        subprocess.run(['kill', str(os.getpid())], check=True)
        ignore()

    monkeypatch.setattr(stop_signal, 'ignore', ignore_too_late)  # in the workers, being forked
    assert [int(batch) for batch in loader_of_a_run([0, 1, 2, 3])] == [0, 1, 2, 3]
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop_signal.received() is signal.SIGTERM, 'held back for the workers only'


def test_workers_of_a_process_that_signals_end_are_as_torch_has_them():
    loader = loader_of_a_run([0, 1, 2, 3], num_workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    worker.join(timeout=60)
    assert worker.exitcode == 0
    kill_workers()


def run_for_ever(numbers: multiprocessing.SimpleQueue) -> None:
    batches = iter(loader_of_a_run([0, 1, 2, 3]))
    next(batches)
    numbers.put([worker.pid for worker in multiprocessing.active_children()])
    time.sleep(600)


def test_deaf_workers_end_with_a_run_that_is_killed(listening):
    """tests/tools/test_train.py has one that ends by itself."""
    context = multiprocessing.get_context('fork')
    numbers = context.SimpleQueue()
    run = context.Process(target=run_for_ever, args=(numbers,))
    run.start()
    workers = numbers.get()
    assert len(workers) == 2 and all(map(is_alive, workers))
    run.kill()
    run.join()
    assert wait_until(lambda: not any(map(is_alive, workers)), 60)
