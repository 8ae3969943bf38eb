"""Looking at processes that a test has started, or that their launcher has."""

import subprocess
import time
from collections.abc import Callable


def children(process: int) -> list[int]:
    result = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(process)], capture_output=True)
    return [int(text) for text in result.stdout.split()]


def is_alive(process: int) -> bool:
    """Whether the process is neither gone nor a zombie."""
    result = subprocess.run(['ps', '-o', 'stat=', '-p', str(process)], capture_output=True)
    return result.stdout.strip()[:1] not in (b'', b'Z')


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition became true in so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
