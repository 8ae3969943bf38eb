from pathlib import Path
from unittest import mock

import pytest

from mmsam.engine import host_memory

GIB = 2**30


def write_machine(folder: Path, limits: dict[str, tuple[str, int]]) -> None:
    """Files as Linux has them: 5 GiB, and the groups of a process, the root's name being ''."""
    meminfo = 'MemTotal:  9 kB\nMemAvailable: 4194304 kB\nSwapFree: 1048576 kB\nHugePages: 0\n'
    (folder / 'meminfo').write_text(meminfo)
    (folder / 'cgroup').write_text('0::/job/step\n')
    for group, (limit, used) in limits.items():
        path = folder / 'groups' / group
        path.mkdir(parents=True, exist_ok=True)
        (path / 'memory.max').write_text(f'{limit}\n')
        (path / 'memory.current').write_text(f'{used}\n')
        (path / 'memory.stat').write_text('anon 7\ninactive_file 60\nactive_file 40\n')


@pytest.mark.parametrize(
    ('limits', 'expected'),
    [
        ({}, 5 * GIB),
        ({'': ('max', 0), 'job/step': ('max', 0)}, 5 * GIB),
        ({'job': ('1000', 300), 'job/step': ('max', 0)}, 800),
        ({'job': ('1000', 300), 'job/step': ('500', 500)}, 100),
        ({'other': ('1', 1)}, 5 * GIB),
        ({'job/step': ('1000', 5000)}, 0),
    ],
)
def test_the_least_of_what_is_there_and_what_is_allowed(tmp_path, limits, expected):
    write_machine(tmp_path, limits)
    with (
        mock.patch.object(host_memory, 'MEMORY_INFO', tmp_path / 'meminfo'),
        mock.patch.object(host_memory, 'OWN_CGROUP', tmp_path / 'cgroup'),
        mock.patch.object(host_memory, 'CGROUPS', tmp_path / 'groups'),
    ):
        assert host_memory.available_memory() == expected


def test_a_machine_that_does_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(host_memory, 'MEMORY_INFO', tmp_path / 'none')
    assert host_memory.available_memory() is None
