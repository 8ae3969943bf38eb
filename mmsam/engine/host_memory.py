"""Memory that this machine, or this container, has left."""

from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')
MEMORY_INFO = Path('/proc/meminfo')
CGROUPS = Path('/sys/fs/cgroup')
OWN_CGROUP = Path('/proc/self/cgroup')


def available_memory() -> int | None:
    """Bytes that processes of this machine or container can still get; None where nobody says."""
    try:
        lines = MEMORY_INFO.read_text().splitlines()
        fields = dict(line.split(':', 1) for line in lines)
        # kB, as 'MemAvailable:   123 kB'
        available = sum(int(fields[key].split()[0]) for key in ('MemAvailable', 'SwapFree')) * 1024
    except (OSError, ValueError, KeyError):
        return None
    return min([available, *_rooms_of_cgroups()])


def _rooms_of_cgroups() -> Iterator[int]:
    """Bytes left below the limits (cgroup v2) that a container or Slurm has set."""
    try:
        own = OWN_CGROUP.read_text().partition('0::')[2].split('\n')[0].strip('/')
    except OSError:
        return
    for part in (Path(own), *Path(own).parents):
        folder = CGROUPS / part
        try:
            limit = int((folder / 'memory.max').read_text())
            used = int((folder / 'memory.current').read_text())
            stat = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
            cache = int(stat['inactive_file']) + int(stat['active_file'])  # given back
            yield max(0, limit - used + cache)
        except (OSError, ValueError, KeyError):  # no limit is the word 'max'
            continue
