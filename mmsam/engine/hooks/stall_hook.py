"""Ends a distributed run in which no rank comes on, and says which one is behind."""

import faulthandler
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch.distributed as dist
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsam.engine.distributed import leave_to_torchrun, time_limit
from mmsam.errors import LaunchError
from mmsam.registry import HOOKS

_KEY = 'mmsam_progress'

_TICK = 5.0
"""Seconds between two looks at the progress, at most; a twentieth of a short limit."""

_START = 2
"""Until every rank has come on once the limit is so many times as long: the first batch and the
first exchange take longer than others."""

_SILENT = 0.25
"""Share of the limit after which a rank that posts nothing counts as stopped or cut off."""

_SHOWN = 8
"""Ranks that the sentence tells of, the slow ones first."""


@HOOKS.register_module()
class StallHook(Hook):
    """End a distributed run in which no rank has come on for ``MMSAM_TIMEOUT_MINUTES``.

    A rank that stops, or loops for ever in a transform, makes all others wait for it in the next
    exchange, with NCCL without an end. Here each rank posts how far it is, some seconds apart, in
    the store of the process group. When no rank has finished an iteration, a batch of a validation
    or of a test, or one for the embedding cache within the limit, each prints the stacks of its
    threads and one sentence with the rank that is behind, and ends with the exit code of
    ``LaunchError``. A single process is not watched.
    """

    # behind CheckpointHook: a rank that hangs while it saves has not finished the iteration
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._watch: StallWatch | None = None

    def before_run(self, runner: Runner) -> None:
        if is_distributed():
            # a clone, because a connection that waits for a key keeps other threads waiting
            store = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
            limit = time_limit().total_seconds()
            self._watch = StallWatch(store, runner.rank, runner.world_size, limit, _end_process)
            self._watch.start()

    def after_embeddings(self, runner: Runner, batches: int) -> None:
        """Called by ``mmsam.engine.embedding_build``, before any training or test."""
        self._note(-1, False, batches)

    def before_train(self, runner: Runner) -> None:
        self._note(runner.iter, False)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        self._note(runner.iter, True)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        self._note(runner.iter + 1, False)

    def before_val(self, runner: Runner) -> None:
        self._note(runner.iter, False)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        self._note(runner.iter, False, batch_idx + 1)

    after_test_iter = after_val_iter
    after_val = before_val

    def after_run(self, runner: Runner) -> None:
        if self._watch is not None:
            self._watch.stop()

    def _note(self, iterations: int, in_next: bool, batches: int = 0) -> None:
        if self._watch is not None:
            self._watch.note(Progress(iterations, in_next, batches))


class Progress(NamedTuple):
    """How far a rank is; tuples compare as ranks do in the same run.

    Args:
        iterations: finished ones, -1 before the run has begun.
        in_next: whether the batch of the next one is loaded.
        batches: finished ones of the validation or test behind these iterations; before the run has
            begun those for the embedding cache.
    """

    iterations: int
    in_next: bool
    batches: int

    def __str__(self) -> str:
        if self.iterations < 0:
            if self.batches:
                return f'finished {self.batches} batches of images for the embedding cache'
            return 'has posted no progress'
        text = f'finished iteration {self.iterations}'
        if self.in_next:
            return f'{text} and was in the next one'
        if self.batches:
            return f'{text} and {self.batches} batches of the validation or test behind it'
        return text


class _Post(NamedTuple):
    """What a rank tells the others: its progress, seconds without any, and where it is."""

    number: int
    progress: Progress
    idle: float
    place: str


class StallWatch:
    """Two threads of one rank: one exchanges posts, which may block, one watches the clock.

    Args:
        store: of torch.distributed, with a connection of its own.
        rank: of this process.
        world_size: number of ranks.
        limit: seconds without progress of any rank.
        end: gets the sentence.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        world_size: int,
        limit: float,
        end: Callable[[str], Any],
    ) -> None:
        self._store = store
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._limit = limit
        self._end = end
        self._tick = min(_TICK, limit / 20)
        self._seldom = max(10, world_size)
        self._progress = Progress(-1, False, 0)
        self._clock = 0.0
        self._idle = 0.0
        self._heard: dict[int, tuple[_Post, float]] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        for target in (self._exchange, self._look):
            threading.Thread(target=target, name=f'stall{target.__name__}', daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def note(self, progress: Progress) -> None:
        """This rank has come on."""
        self._progress = progress

    def _exchange(self) -> None:
        number = 0
        while not self._stopped.wait(self._tick):
            number += 1
            post = _Post(number, self._progress, self._idle, _place_of_main_thread())
            try:
                self._store.set(f'{_KEY}/{self._rank}', json.dumps(post))
                # seldom as long as all is well, so that many ranks cost the store little
                if self._idle >= self._limit / 2 or number % self._seldom == 1:
                    for other in self._others:
                        self._hear(other)
            except RuntimeError:  # the machine of the store is out of reach, perhaps for ever
                continue

    def _hear(self, rank: int) -> None:
        key = f'{_KEY}/{rank}'
        if not self._store.check([key]):
            return
        number, progress, idle, place = json.loads(self._store.get(key))
        post = _Post(number, Progress(*progress), idle, place)
        if rank not in self._heard or self._heard[rank][0].number != number:
            self._heard[rank] = post, self._clock

    def _look(self) -> None:
        noted, since, before = self._progress, 0.0, time.monotonic()
        while not self._stopped.wait(self._tick):
            now = time.monotonic()
            # a process that was stopped for hours, with all others perhaps, did not wait for them
            self._clock += min(now - before, 2 * self._tick)
            before = now
            if self._progress is not noted:
                noted, since = self._progress, self._clock
            self._idle = self._clock - since
            if self._idle >= self._current_limit() and not self._does_another_come_on():
                self._end(self._sentence())
                return

    def _current_limit(self) -> float:
        posts = [post.progress for post, _ in self._heard.values()]
        begun = [*posts, self._progress]
        everyone = len(posts) == len(self._others) and min(begun) > Progress(0, False, 0)
        return self._limit * (1 if everyone else _START)

    def _does_another_come_on(self) -> bool:
        return any(
            post.idle < self._limit for rank, (post, _) in self._heard.items() if self._lives(rank)
        )

    def _lives(self, rank: int) -> bool:
        heard = self._heard.get(rank)
        return heard is not None and self._clock - heard[1] < _SILENT * self._limit

    def _sentence(self) -> str:
        posts = {rank: post for rank, (post, _) in self._heard.items()}
        posts[self._rank] = _Post(0, self._progress, self._idle, _place_of_main_thread())
        for other in self._others:
            posts.setdefault(other, _Post(0, Progress(-1, False, 0), 0.0, 'an unknown place'))
        silent = [rank for rank in self._others if not self._lives(rank)]
        least = min(post.progress for post in posts.values())
        last = [rank for rank in sorted(posts) if posts[rank].progress == least]
        if silent:
            slow, which = silent, f'{_ranks(silent)} posts nothing any more'
        elif len(last) < len(posts):
            slow, which = last, f'{_ranks(last)} is behind'
        else:
            slow, which = [], 'all are equally far'
        ordered = [*slow, *sorted(posts.keys() - set(slow))]
        states = [
            f'rank {rank}{", by its last post," if rank in silent else ""} '
            f'{posts[rank].progress}, at {posts[rank].place}'
            for rank in ordered[:_SHOWN]
        ]
        more = ['...'] if len(ordered) > _SHOWN else []
        return (
            f'No rank has come on for {self._idle:.0f} s (MMSAM_TIMEOUT_MINUTES), {which}: '
            f'{"; ".join(states + more)}.'
        )


def _ranks(ranks: list[int]) -> str:
    names = ', '.join(map(str, ranks[:_SHOWN])) + (', ...' if len(ranks) > _SHOWN else '')
    return f'rank {names}' if len(ranks) == 1 else f'each of the ranks {names}'


def _place_of_main_thread() -> str:
    """File, line and function in which the main thread is."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return 'its end'
    code = frame.f_code
    return f'{Path(code.co_filename).name}:{frame.f_lineno} in {code.co_name}'


def _end_process(sentence: str) -> NoReturn:
    """End this process from a thread; the main thread may never be reached again.

    Nothing is logged: the main thread may wait for the log's disk, and hold its lock.
    """
    error = LaunchError(sentence)
    words = f'{type(error).__name__}: {error}'
    leave_to_torchrun(words, error.exit_code)
    faulthandler.dump_traceback(all_threads=True)
    print(words, file=sys.stderr, flush=True)
    for worker in multiprocessing.active_children():  # of data loaders, which may hang too
        worker.kill()
    os._exit(error.exit_code)
