import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils import signal_handling

# the tests' models are tiny: more threads only wait for each other
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_run() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope='session')
def _frozen_encoders_in_float32() -> Iterator[None]:
    """The same numbers in this process on every machine, also where bfloat16 is fast."""
    with pytest.MonkeyPatch.context() as patch:
        segmentor = sys.modules.get('mmsam.models.segmentors.sam_segmentor')
        if segmentor is not None:
            patch.setattr(segmentor, 'fast_bfloat16', lambda device: False)
        yield


@pytest.fixture(autouse=True)
def _no_workers_left_to_later_tests(monkeypatch) -> Iterator[None]:
    """torch keeps an iterator's workers under its address until it ends.

    An error from a dying worker can interrupt that end; the entry that stays fails the next
    iterator at this address, in a test that has done nothing wrong.
    """
    kept: set[int] = set()
    keep, forget = signal_handling._set_worker_pids, signal_handling._remove_worker_pids
    monkeypatch.setattr(
        signal_handling, '_set_worker_pids', lambda *args: (keep(*args), kept.add(args[0]))
    )
    monkeypatch.setattr(
        signal_handling, '_remove_worker_pids', lambda key: (forget(key), kept.discard(key))
    )
    yield
    if kept:
        gc.collect()  # iterators that a traceback holds
    for key in kept:
        forget(key)


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> Path:
    """The small data set of whole runs, which no test may change."""
    from tiny_run import write_dataset  # imports all of mmsam, which few tests need

    return write_dataset(tmp_path_factory.mktemp('data') / 'tiny')
