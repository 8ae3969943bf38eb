"""The folders that a tool writes to: they can be written, and no other run has them."""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TextIO

from mmengine.dist import is_main_process
from mmengine.logging import print_log

from mmsam.engine.agreement import raised_by_all
from mmsam.errors import StorageError

_LOCK = '.lock'

SECONDS_FOR_AN_EARLIER_START = 60
"""That a Slurm job which was started again waits for the processes of its earlier start to end."""


def check_writable(*folders: str | Path) -> None:
    """Make the folders that do not exist, and write a file to each and delete it.

    Rank 0 does it, all ranks end together.

    Raises:
        StorageError: a folder cannot be made or written.
    """
    with raised_by_all():
        if is_main_process():
            for folder in folders:
                _write_probe(Path(folder))


@contextmanager
def hold_work_dir(folder: str | Path) -> Iterator[None]:
    """Keep a work dir for this run alone, from ``check_writable`` to the end of the block.

    Rank 0 holds a lock on a file in it, which the system drops with the process however that ends:
    a killed run can be resumed at once. It is a lock of ``fcntl``, not of ``flock``, because
    processes of data loaders, which may live on for seconds, would inherit the latter. On a file
    system without locks there is a warning instead.

    Raises:
        StorageError: the folder cannot be written, or another run holds it.
    """
    with ExitStack() as stack:
        with raised_by_all():
            if is_main_process():
                _write_probe(Path(folder))
                stack.enter_context(_locked(Path(folder)))
        yield


def _write_probe(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix='.probe_') as file:
            file.write(b'probe')
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        files = [path for path in (folder, *folder.parents) if os.path.isfile(path)]
        reason = f'{files[0]} is a file' if files else error.strerror
        raise StorageError(f'The folder {folder} cannot be written: {reason}.') from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / _LOCK
    try:
        file = path.open('a+', encoding='utf-8')
    except OSError as error:
        raise StorageError(f'{path} cannot be written: {error.strerror}.') from None
    with file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.seek(0)
                holder = file.read().strip() or 'another process'
                raise StorageError(
                    f'{folder} is in use by {holder}, which trains there: stop it, or choose '
                    'another --work-dir.'
                ) from None
            print_log(
                f'{folder} is on a file system without locks ({error.strerror}): no second run '
                'may be started in it.',
                logger='current',
                level=logging.WARNING,
            )
        file.truncate(0)
        file.write(_name_of_this_process())
        file.flush()
        yield


def _lock(file: TextIO) -> None:
    end = time.monotonic() + SECONDS_FOR_AN_EARLIER_START
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            file.seek(0)
            job = _slurm_job()
            if not job or not file.read().endswith(job) or time.monotonic() > end:
                raise
        time.sleep(1)


def _slurm_job() -> str:
    job = os.environ.get('SLURM_JOB_ID')
    return f' (Slurm job {job})' if job else ''


def _name_of_this_process() -> str:
    return f'process {os.getpid()} on host {socket.gethostname()}{_slurm_job()}'
