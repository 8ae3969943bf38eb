"""Ranks as threads of one process; tests/faults stops real ones."""

import os
import queue
import subprocess
import sys
import time

import pytest
import torch.distributed as dist

from mmsam.engine.hooks.stall_hook import Progress, StallWatch

LIMIT = 2.0
"""Seconds; half of it is long enough for a thread of a busy machine."""


class Ranks:
    """The watches of so many ranks; what they end with, in its order."""

    def __init__(self, number: int) -> None:
        self.sentences: queue.Queue[str] = queue.Queue()
        store = dist.HashStore()
        self.watches = [
            StallWatch(store, rank, number, LIMIT, self.sentences.put) for rank in range(number)
        ]
        for watch in self.watches:
            watch.start()

    def note(self, rank: int, iterations: int, in_next: bool = False, batches: int = 0) -> None:
        self.watches[rank].note(Progress(iterations, in_next, batches))

    def sentence(self) -> str:
        return self.sentences.get(timeout=60)


@pytest.fixture
def ranks():
    made = []

    def make(number):
        made.append(Ranks(number))
        return made[-1]

    yield make
    for each in made:
        for watch in each.watches:
            watch.stop()


def test_the_rank_that_loads_for_ever_is_behind(ranks):
    three = ranks(3)
    for rank in range(3):
        three.note(rank, 7, in_next=rank != 1)
    text = three.sentence()
    assert text.startswith('No rank has come on for ')
    assert ' (MMSAM_TIMEOUT_MINUTES), rank 1 is behind: rank 1 finished iteration 7, at ' in text
    assert '; rank 0 finished iteration 7 and was in the next one, at ' in text
    assert '; rank 2 finished iteration 7 and was in the next one, at ' in text
    assert text.count(' in ') and '.py:' in text


def test_a_validation_in_which_one_rank_hangs(ranks):
    two = ranks(2)
    two.note(0, 7, batches=3)
    two.note(1, 7, batches=9)
    assert 'rank 0 is behind: rank 0 finished iteration 7 and 3 batches of ' in two.sentence()


def test_a_rank_that_hangs_while_embeddings_are_computed(ranks):
    two = ranks(2)
    two.note(0, -1, batches=3)
    two.note(1, -1, batches=9)
    text = two.sentence()
    assert 'rank 0 is behind: rank 0 finished 3 batches of images for the embedding cache' in text


def test_a_rank_that_stopped(ranks):
    """Its threads stop too."""
    two = ranks(2)
    two.note(0, 7, in_next=True)
    two.note(1, 7, in_next=True)
    time.sleep(LIMIT / 4)
    two.watches[1].stop()
    text = two.sentence()
    assert 'rank 1 posts nothing any more: rank 1, by its last post, finished iteration 7' in text


def test_as_long_as_one_rank_comes_on_the_others_wait(ranks):
    two = ranks(2)
    two.note(0, 7)
    for batches in range(20):  # 2.5 times the limit
        two.note(1, 7, batches=batches)
        time.sleep(LIMIT / 8)
        assert two.sentences.empty()
    assert 'rank 0 is behind' in two.sentence()


def test_nobody_is_behind(ranks):
    two = ranks(2)
    for rank in range(2):
        two.note(rank, 7)
    assert 'all are equally far: rank 0 finished iteration 7, at ' in two.sentence()


def test_a_start_may_take_longer(ranks):
    start = time.monotonic()
    two = ranks(2)
    two.note(0, 0, in_next=True)
    assert 'rank 1 is behind: rank 1 has posted no progress, at ' in two.sentence()
    assert time.monotonic() - start > 1.5 * LIMIT


def test_a_run_that_has_ended_is_not_watched(ranks):
    two = ranks(2)
    for rank in range(2):
        two.note(rank, 7)
        two.watches[rank].stop()
    time.sleep(1.5 * LIMIT)
    assert two.sentences.empty()


def test_the_process_ends_although_its_main_thread_is_stuck(tmp_path):
    script = """
import threading, time
from mmsam.engine.hooks.stall_hook import _end_process
stuck = threading.Event()
def end():
    stuck.wait()
    _end_process('No rank has come on.')
threading.Thread(target=end, daemon=True).start()
while True:
    stuck.set(); time.sleep(1)
"""
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=120,
        env={**os.environ, 'TORCHELASTIC_ERROR_FILE': str(tmp_path / 'error.json')},
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1] == 'LaunchError: No rank has come on.'
    assert 'File "<string>", line 10 in <module>' in done.stderr  # where the main thread is
    assert 'LaunchError: No rank has come on.' in (tmp_path / 'error.json').read_text()
