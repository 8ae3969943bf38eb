"""Reads the files of ``torch.save`` as data: nothing in them is ever run."""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mmsam.errors import CheckpointError


def check_kind(path: Path, name: str) -> None:
    """Refuse what is no binary file at all, and say what it is.

    Args:
        path: the file.
        name: what the message calls it, a URL perhaps.

    Raises:
        CheckpointError: it is empty, text, a web page or a Git LFS pointer.
    """
    with path.open('rb') as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if not head:
        found = 'is empty'
    elif head.startswith(b'version https://git-lfs'):
        found = 'is a Git LFS pointer, not the weights: run "git lfs pull" where it comes from'
    elif text.startswith((b'<!doctype', b'<html', b'<?xml')):
        found = 'is a web page, not weights: its download address was wrong or needs a login'
    elif not head.startswith((b'PK', b'\x80')) and not any(b < 9 or 13 < b < 32 for b in head):
        found = 'is a text file, not weights'
    else:
        return
    raise CheckpointError(f'{name} {found} ({path.stat().st_size} bytes).')


class _Ignored:
    """Stands in for what a training checkpoint holds beside tensors; does nothing, whatever it is.

    mmengine pickles the history of its log with ``HistoryBuffer``, numpy arrays and even
    ``getattr``. Allowing the real ones would let a file call them.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_IGNORED_GLOBALS = (
    'builtins.getattr',
    'builtins.slice',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'numpy.dtype',
    'numpy.ndarray',
    *(
        f'numpy.{core}.multiarray.{name}'
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ),
)


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote, read as data alone.

    Args:
        path: a file in torch's present (zip) or old (pickle) format.

    Returns:
        Its content; tensors are on the CPU and may be mapped from the file.

    Raises:
        CheckpointError: the file is truncated, damaged, not torch's, or would run code.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        is_zip = file.read(2) == b'PK'
    if is_zip:
        try:
            with zipfile.ZipFile(path) as archive:
                # torch never compresses: what unpacks to more than the file's size is a bomb
                members = archive.infolist()
                if any(member.file_size != member.compress_size for member in members):
                    raise CheckpointError(
                        f'{path} is a compressed archive, which torch never writes.'
                    )
                if sum(member.file_size for member in members) > size:
                    raise CheckpointError(f'{path} is an archive whose members overlap.')
                damaged = archive.testzip()  # torch.load does not look at the checksums
        except zipfile.BadZipFile:
            raise CheckpointError(
                f'{path} is truncated: it ends after {size} bytes without its table of contents.'
            ) from None
        if damaged is not None:
            raise CheckpointError(f'{path} is damaged: the checksum of {damaged} does not fit.')
    try:
        with torch.serialization.safe_globals([(_Ignored, name) for name in _IGNORED_GLOBALS]):
            content = torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own message advises to load without protection: it must not be shown
        forbidden = re.search(r'GLOBAL (\S+)', str(error))
        if forbidden:
            raise CheckpointError(
                f'{path} is refused: it contains {forbidden[1]}, which is no part of weights.'
            ) from None
    except Exception:  # noqa: BLE001  (damaged bytes may fail anywhere in the unpickler)
        pass
    else:
        largest = max(map(_bytes_of, _tensors_in(content)), default=0)
        if largest > size:
            raise CheckpointError(
                f'{path} has {size} bytes, but one of its tensors would take {largest}.'
            )
        return content
    if is_zip:
        raise CheckpointError(f'{path} is a zip archive without PyTorch weights.')
    raise CheckpointError(
        f'{path} is truncated, damaged or no file of PyTorch weights ({size} bytes).'
    )


def _tensors_in(content: Any) -> Iterator[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors_in(value)
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from _tensors_in(value)


def _bytes_of(tensor: torch.Tensor) -> int:
    """What a copy takes: more than is stored where a stride is 0."""
    return tensor.numel() * tensor.element_size()
