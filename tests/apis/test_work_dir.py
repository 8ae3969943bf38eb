import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_run import environment, refused, write_config

from mmsam.apis import check_writable, hold_work_dir
from mmsam.errors import StorageError
from tools import test, train

HOLDER = """
import os
import sys
import time

from mmsam.apis import hold_work_dir

with hold_work_dir(sys.argv[1]):
    child = os.fork()  # as the processes of a data loader
    if child:
        print(child, flush=True)
    time.sleep(300)
"""


def start_holder(work_dir: Path, *args: str, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(work_dir), *args], env=environment(**variables),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.bad_input(80)
def test_a_second_run_in_a_work_dir_is_refused_until_the_first_is_killed(
    tmp_path, capsys, monkeypatch
):
    config = write_config(tmp_path, tmp_path)  # the work dir comes before the data
    for name in ('train', 'val'):
        (tmp_path / f'annotations_{name}.json').touch()
    (tmp_path / 'images').mkdir()
    work_dir = tmp_path / 'run'
    with hold_work_dir(work_dir):
        pass  # a run that has ended leaves the folder to others
    holder = start_holder(work_dir, SLURM_JOB_ID='4711')
    child = 0
    try:
        child = int(holder.stdout.readline())
        code, line = refused(capsys, train, config, '--work-dir', work_dir)
        assert (code, line) == (
            6,
            f'StorageError: {work_dir} is in use by process {holder.pid} on host '
            f'{socket.gethostname()} (Slurm job 4711), which trains there: stop it, or choose '
            'another --work-dir.',
        )
        # the same job, started again while its processes of before still end
        monkeypatch.setenv('SLURM_JOB_ID', '4711')
        threading.Timer(1.5, holder.kill).start()
        with hold_work_dir(work_dir):
            os.kill(child, 0)  # it lives on
            assert (work_dir / '.lock').read_text().startswith(f'process {os.getpid()} on host ')
    finally:
        holder.kill()
        holder.wait()
        if child:
            os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(95, 'Operation not supported')

    told = []
    monkeypatch.setattr(fcntl, 'lockf', no_locks)
    monkeypatch.setattr('mmsam.apis.work_dir.print_log', lambda text, **_: told.append(text))
    with hold_work_dir(tmp_path):
        assert len(told) == 1 and 'without locks (Operation not supported)' in told[0]


@pytest.mark.bad_input(85)
def test_a_work_dir_that_cannot_be_written(tmp_path):
    """Also for root, whom no permission stops."""
    (tmp_path / 'file').touch()
    for folder, reason in (
        (tmp_path / 'file', f'{tmp_path / "file"} is a file'),
        (tmp_path / 'file' / 'run', f'{tmp_path / "file"} is a file'),
        (Path('/proc/no/run'), 'No such file or directory'),
    ):
        with pytest.raises(StorageError) as caught, hold_work_dir(folder):
            pass
        assert str(caught.value) == f'The folder {folder} cannot be written: {reason}.'


def test_a_full_disk(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(StorageError, match='cannot be written: No space left on device'):
        check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_folders_are_made_and_nothing_is_left(tmp_path):
    check_writable(tmp_path / 'a' / 'b', tmp_path / 'c')
    assert sorted(tmp_path.rglob('*')) == [tmp_path / 'a', tmp_path / 'a' / 'b', tmp_path / 'c']


@pytest.mark.parametrize('place', ['--work-dir', '--show-dir', '--out'])
def test_a_test_run_looks_at_all_that_it_writes(place, tmp_path, capsys):
    config = write_config(tmp_path, tmp_path)
    for name in ('images', 'annotations_test.json', 'weights.pth', 'file'):
        (tmp_path / name).touch()
    blocked = tmp_path / 'file' / 'results.json' if place == '--out' else tmp_path / 'file'
    places = {'--work-dir': tmp_path / 'run', place: blocked}
    args = [str(part) for pair in places.items() for part in pair]
    code, line = refused(capsys, test, config, tmp_path / 'weights.pth', *args)
    assert code == 6
    assert line.endswith(f'/file cannot be written: {tmp_path / "file"} is a file.')
