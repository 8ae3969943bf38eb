"""Remembers a signal that asks the process to end, until the training can follow it.

Slurm may send its signal early, while a program is still being imported: a tool calls ``listen``
before it imports anything heavy.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_GRACE = 2.0  # seconds; the terminal and a launcher may both pass on the same Ctrl-C

_received: tuple[signal.Signals, float] | None = None


def listen() -> None:
    """From now on remember SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) instead of ending.

    A second SIGINT, two seconds or more after the first, ends the process at once.
    """
    for number in _SIGNALS:
        signal.signal(number, _remember)


def is_listening() -> bool:
    """Whether this process remembers signals."""
    return signal.getsignal(signal.SIGTERM) is _remember


@contextmanager
def held_back() -> Iterator[None]:
    """Inside, the signals wait, also for processes that are started there, until these ``ignore``.

    Only of the calling thread.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """From now on ignore the signals, those that were held back too."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _remember(number: int, frame: FrameType | None) -> None:
    global _received
    now = time.monotonic()
    if _received is None:
        _received = signal.Signals(number), now
        if number == signal.SIGINT:
            print('Saving after this iteration; Ctrl-C again leaves at once.', file=sys.stderr)
    elif number == signal.SIGINT and now - _received[1] >= _GRACE:
        raise KeyboardInterrupt


def received() -> signal.Signals | None:
    """The first signal since ``listen``, or None."""
    return None if _received is None else _received[0]


def forget() -> None:
    """Forget the signal, for a process that goes on with something else."""
    global _received
    _received = None
