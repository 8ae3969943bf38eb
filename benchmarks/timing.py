"""Times of several ways to compute the same, in interleaved rounds."""

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from .rows import Measurement

Sides = Mapping[Any, Callable[[], Any]]


def all_threads() -> int:
    """Cores that this process may use, or fewer where OMP_NUM_THREADS says so."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, int(os.environ.get('OMP_NUM_THREADS', cores)))


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Times:
    """Seconds of each side in each round.

    Args:
        cpu: of the process's CPU time with one thread; empty if it was not measured.
        wall: of wall time with all threads.
        outputs: what each side returned in the run before the rounds.
    """

    cpu: Mapping[Any, list[float]]
    wall: Mapping[Any, list[float]]
    outputs: Mapping[Any, Any]

    def ratio(
        self, ours: str, theirs: str, error: float | None = None, **facts: Any
    ) -> Measurement:
        """How many times longer ``theirs`` takes than ``ours``: of CPU time, if there is one."""
        wall = _ratios(self.wall, ours, theirs)
        if not self.cpu:
            return measurement(self.wall[ours], self.wall[theirs], 's', error=error, facts=facts)
        return measurement(
            self.cpu[ours],
            self.cpu[theirs],
            's CPU',
            error=error,
            wall_ratio=median(wall),
            wall_spread=(min(wall), max(wall)),
            facts=facts,
        )


def measurement(
    ours: list[float], theirs: list[float], unit: str, *, at_most: bool = False, **more: Any
) -> Measurement:
    """Median and spread of the rounds' theirs / ours, or with ``at_most`` of ours / theirs."""
    pairs = zip(theirs, ours, strict=True)
    ratios = [b / a if at_most else a / b for a, b in pairs]
    return Measurement(
        ratio=median(ratios),
        spread=(min(ratios), max(ratios)),
        ours=median(ours),
        theirs=median(theirs),
        unit=unit,
        **more,
    )


def _ratios(times: Mapping[str, list[float]], ours: str, theirs: str) -> list[float]:
    return [a / b for a, b in zip(times[theirs], times[ours], strict=True)]


def interleaved(sides: Sides, rounds: int, *, with_cpu: bool = True, warm: bool = True) -> Times:
    """Run each side once, then in ``rounds`` rounds, in which each is timed once by each clock.

    Args:
        sides: what to run, by name, in the order of each round.
        rounds: of each clock.
        with_cpu: measure CPU time with one thread, too; it doubles the rounds.
        warm: False leaves out the first run of each side, and so the outputs.
    """
    with threads(all_threads()):
        outputs = {name: side() for name, side in sides.items()} if warm else {}
    wall = _rounds(sides, rounds, time.perf_counter, all_threads())
    cpu = _rounds(sides, rounds, time.process_time, 1) if with_cpu else {}
    return Times(cpu, wall, outputs)


def _rounds(
    sides: Sides, rounds: int, clock: Callable[[], float], number_of_threads: int
) -> dict[Any, list[float]]:
    seconds: dict[Any, list[float]] = {name: [] for name in sides}
    with threads(number_of_threads):
        for _ in range(rounds):
            for name, side in sides.items():
                gc.collect()  # not while the clock runs
                start = clock()
                side()
                seconds[name].append(clock() - start)
    return seconds
