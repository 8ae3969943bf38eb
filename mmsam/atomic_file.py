"""Writes a file so that at any moment either the old or the whole new one has its name."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mmsam.errors import StorageError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new file in the same folder, then give it the name ``path``.

    The content is on the disk before the name is (fsync of the file, rename, fsync of the folder).
    A process that is killed leaves at most a hidden ``.partial`` file behind.

    Args:
        path: file to write; missing folders are made.
        write: gets the path of the new file.

    Raises:
        StorageError: it cannot be written; ``path`` is what it was before.
        RuntimeError: torch's, of a data loader's worker that died meanwhile.
    """
    partial_path = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial_path)
        with partial_path.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(partial_path, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        if 'DataLoader worker' in str(error):  # one has died meanwhile, which torch raises anywhere
            raise
        # torch.save hides the reason of a failed write in a RuntimeError about positions
        raise StorageError(
            f'{path} cannot be written: {" ".join(str(error).split())}{_free_space(path.parent)}.'
        ) from None
    finally:
        with suppress(OSError):
            partial_path.unlink()


def write_text_atomically(path: Path, text: str) -> None:
    """As ``write_atomically``, of a text in UTF-8."""
    write_atomically(path, lambda partial_path: _write_text(partial_path, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding='utf-8')


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_space(folder: Path) -> str:
    try:
        return f' ({shutil.disk_usage(folder).free / 1e6:.0f} MB are free there)'
    except OSError:
        return ''
