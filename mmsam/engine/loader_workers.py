"""Worker processes of data loaders: their signals, their end, and what befalls them."""

import atexit
import multiprocessing
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from mmsam import stop_signal
from mmsam.errors import DataError, MMSAMError

from .host_memory import SHARED_MEMORY, available_memory

WORKER_TIMEOUT = 600
"""Seconds that a data loader with workers waits for a batch, where the config says nothing."""

_CAUGHT = re.compile(r'Caught \w+ in DataLoader worker process \d+\.')
_KILLED = re.compile(
    r'DataLoader worker \(pid\(?s?\)? [\d, ]+\) (exited unexpectedly|is killed by signal: [\w ]+)'
)
_HANGS = re.compile(r'DataLoader timed out after (\d+) seconds')


class _DeafWorkersLoader(DataLoader):
    """Starts its workers so that no signal reaches them before they ignore it."""

    def __iter__(self) -> Any:
        with stop_signal.held_back():
            return super().__iter__()


def make_workers_deaf(loader: DataLoader) -> None:
    """Let the workers of a loader ignore the signals that ask this process to end.

    This process follows them later and needs its workers until then; torchrun, a terminal and Slurm
    send them to the workers too, which would die from them, and with them the run. The workers end
    when this process does: they look for it some seconds apart, and ``kill_workers`` is called at
    its end, where multiprocessing would wait for ever after a SIGTERM.

    Args:
        loader: without workers so far; it is changed.
    """
    loader.worker_init_fn = partial(_start_deaf, loader.worker_init_fn)
    loader.__class__ = _DeafWorkersLoader  # mmengine builds no other class
    atexit.unregister(kill_workers)
    atexit.register(kill_workers)


def _start_deaf(worker_init_fn: Callable[[int], None] | None, worker_id: int) -> None:
    stop_signal.ignore()
    if worker_init_fn is not None:
        worker_init_fn(worker_id)


@contextmanager
def worker_failures() -> Iterator[None]:
    """Say in one sentence what happened to a worker; torch gives tracebacks, or no reason.

    Raises:
        MMSAMError: one that a worker raised, with its own words.
        DataError: a worker was killed, or brought no batch in time.
    """
    try:
        try:
            yield
        except (OSError, EOFError):
            _raise_if_a_worker_dies()  # its connection may be the first to fail
            raise
    except MMSAMError as error:
        text = str(error)
        if not _CAUGHT.match(text):
            raise
        kind = f'{type(error).__module__}.{type(error).__qualname__}: '
        raise type(error)(text.rpartition(kind)[2].strip()) from error
    except RuntimeError as error:  # raised anywhere, by the handler of SIGCHLD
        if killed := _KILLED.search(f'{error.__cause__} {error}'):  # the cause knows the signal
            kill_workers()
            raise DataError(
                f'A worker of a data loader was killed ({killed[0]}; '
                f'{_memory()} are available): where memory ran out, set a lower num_workers or '
                'batch_size.'
            ) from error
        if hangs := _HANGS.search(str(error)):
            kill_workers()
            raise DataError(
                f'No batch came from the workers of a data loader for {hangs[1]} s: a transform, '
                'or the disk that it reads from, hangs; where it is only slow, set a higher '
                'timeout of the data loader.'
            ) from error
        raise


def _raise_if_a_worker_dies() -> None:
    """Wait for some seconds for a worker that is being killed; raise as torch does."""
    workers = multiprocessing.active_children()
    end = time.monotonic() + 10
    while workers and time.monotonic() < end:
        for worker in workers:
            if worker.exitcode is not None and worker.exitcode < 0:
                name = signal.Signals(-worker.exitcode).name
                raise RuntimeError(
                    f'DataLoader worker (pid {worker.pid}) is killed by signal: {name}'
                )
        time.sleep(0.1)


def kill_workers() -> None:
    """Kill the workers of all data loaders: the end of this process would wait for them."""
    torchs = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it would raise for each
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join(timeout=5)  # one that waits for a dead disk stays
    signal.signal(signal.SIGCHLD, torchs)


def _memory() -> str:
    """Memory that this machine has left for processes and for batches between them."""
    parts = []
    available = available_memory()
    if available is not None:
        parts.append(f'{available / 1e9:.1f} GB of memory')
    with suppress(OSError):  # only Linux has it
        parts.append(f'{shutil.disk_usage(SHARED_MEMORY).free / 1e9:.1f} GB of {SHARED_MEMORY}')
    return ' and '.join(parts) or 'an unknown amount of memory'
