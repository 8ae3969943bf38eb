"""Runs a training step for real, in a process of its own, to compare its memory with the plan."""

import ctypes
import multiprocessing
from multiprocessing.queues import SimpleQueue

from mmsam.apis.plan.training_step import (
    BatchSize,
    Training,
    build_model,
    build_optimizer,
    make_batch,
)

from .memory import resident

_M_MMAP_THRESHOLD = -3
"""Of glibc's ``mallopt``."""

_FREED_AT_ONCE = 2**20
"""Bytes from which on a block goes back to the system when it is freed, where that is asked for."""


def measure_step(training: Training, size: BatchSize, *, frees_at_once: bool = False) -> int:
    """The peak resident memory (VmHWM) in bytes of a process that trains on a CPU; Linux only.

    It builds the model and its optimizer, with the states that they have after the first update,
    and trains on one batch.

    Args:
        training: with spawned processes, its ``change`` has to be importable by its name.
        size: of the batch.
        frees_at_once: False: as any process, in which glibc keeps freed blocks of up to 32 MiB.
            True: those of 1 MiB and more go back to the system, as if
            ``MALLOC_MMAP_THRESHOLD_=1048576`` was set, and what is left is in use.

    Raises:
        RuntimeError: the process died, perhaps for lack of memory.
    """
    context = multiprocessing.get_context('spawn')
    results: SimpleQueue[int] = context.SimpleQueue()
    process = context.Process(target=_train, args=(training, size, frees_at_once, results))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f'The process that was measured ended with {process.exitcode}.')
    return results.get()


def _train(
    training: Training, size: BatchSize, frees_at_once: bool, results: 'SimpleQueue[int]'
) -> None:
    if frees_at_once:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _FREED_AT_ONCE)
    model = build_model(training)
    optim_wrapper = build_optimizer(training, model)
    model.train_step(make_batch(training, model, size), optim_wrapper)
    results.put(round(resident('VmHWM') * 2**30))
