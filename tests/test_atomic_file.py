import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mmsam
from mmsam.atomic_file import write_atomically
from mmsam.errors import StorageError


def write_bytes(content: bytes):
    return lambda path: path.write_bytes(content)


def test_it_makes_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / 'a' / 'b' / 'file'
    write_atomically(path, write_bytes(b'one'))
    write_atomically(path, write_bytes(b'two'))
    assert path.read_bytes() == b'two'
    assert list(path.parent.iterdir()) == [path]


def test_whoever_has_the_old_file_open_keeps_reading_it(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'old')
    with path.open('rb') as file:
        write_atomically(path, write_bytes(b'new'))
        assert file.read() == b'old'


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), RuntimeError('at\n5')])
def test_a_failed_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / 'file'
    path.write_bytes(b'old')

    def fail(partial_path: Path) -> None:
        partial_path.write_bytes(b'ha')
        raise error

    with pytest.raises(StorageError, match='file cannot be written: .* MB are free') as raised:
        write_atomically(path, fail)
    assert '\n' not in str(raised.value)
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_worker_that_dies_meanwhile_is_not_the_disk_s_fault(tmp_path):
    error = RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')

    def fail(partial_path: Path) -> None:
        partial_path.write_bytes(b'ha')
        raise error

    with pytest.raises(RuntimeError) as raised:
        write_atomically(tmp_path / 'file', fail)
    assert raised.value is error
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(StorageError, match='cannot be written'):
        write_atomically(tmp_path / 'file' / 'below', write_bytes(b'x'))


@pytest.mark.bad_input(84)
def test_a_real_limit_of_the_system(tmp_path):
    """A process may write no file beyond 1000 bytes, which fails as a full disk does."""
    path = tmp_path / 'file'
    path.write_bytes(b'old')
    script = f"""
import resource, signal, pathlib
from mmsam.atomic_file import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(pathlib.Path({str(path)!r}), lambda p: p.write_bytes(bytes(5000)))
except Exception as error:
    print(type(error).__name__, error)
"""
    assert resource.RLIMIT_FSIZE is not None and signal.SIGXFSZ  # Unix
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': str(Path(mmsam.__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.startswith('StorageError ') and 'File too large' in done.stdout
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]
