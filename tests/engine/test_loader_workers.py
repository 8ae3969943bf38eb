"""Real workers that fail, are killed, or hang."""

import multiprocessing
import os
import re
import signal
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from mmsam.engine import SAMRunner
from mmsam.engine.loader_workers import worker_failures
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
