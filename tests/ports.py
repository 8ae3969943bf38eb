"""Ports of this machine that tests use."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """One that nobody has at this moment."""
    with socket.socket() as listener:
        listener.bind(('', 0))
        return listener.getsockname()[1]


@contextmanager
def usual_port() -> Iterator[None]:
    """Keep 29500, which jobs take without PORT, from tests that run beside this one."""
    path = Path(tempfile.gettempdir()) / f'mmsam_tests_{os.getuid()}_29500.lock'
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
