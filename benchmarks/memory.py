"""Peak memory of a step, in a process of its own."""

import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .rows import Measurement

_STATUS = Path('/proc/self/status')
_CLEAR = Path('/proc/self/clear_refs')


class StepMemory(NamedTuple):
    """GiB that a step adds at most to what was resident before it, and the process's peak."""

    added: float
    peak: float


def resident(field: str) -> float:
    """``VmRSS``, what is resident now, or ``VmHWM``, the most there was; GiB."""
    return int(_STATUS.read_text().partition(f'{field}:')[2].split()[0]) / 2**20


def forget_peak() -> None:
    """Set ``VmHWM`` back to what is resident now."""
    _CLEAR.write_text('5')


def step_memory(build: Callable[..., Callable[[], Any]], *arguments: Any) -> StepMemory:
    """Peak resident memory of the step that ``build(*arguments)`` returns, in a fresh process.

    Args:
        build: a function of a module: makes models and inputs, which do not count as added.
        arguments: for it; they are pickled.

    Raises:
        RuntimeError: the process failed.
    """
    # each process is forked from a server that has imported torch but computed nothing
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['benchmarks.size_rows', 'benchmarks.training_rows'])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, build, arguments))
    process.start()
    sender.close()  # so that the process's end is seen
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f'{build.__name__}{arguments} ended with {process.exitcode}') from None
    finally:
        process.join()


def memory_ratio(ours: StepMemory, theirs: StepMemory) -> Measurement:
    """What our step adds at most, as a share of theirs."""
    ratio = ours.added / theirs.added
    return Measurement(
        ratio,
        (ratio, ratio),
        ours.added,
        theirs.added,
        'GiB',
        facts=dict(our_peak_gib=ours.peak, their_peak_gib=theirs.peak),
    )


def _measure(sender: Any, build: Callable[..., Callable[[], Any]], arguments: tuple) -> None:
    step = build(*arguments)
    gc.collect()
    forget_peak()
    before = resident('VmRSS')
    step()
    peak = resident('VmHWM')
    sender.send(StepMemory(peak - before, peak))
