"""The files from which a training goes on: written atomically, with a digest, as plain data.

A training checkpoint is a dict with ``meta``, ``state_dict``, ``message_hub``, ``optimizer``,
``param_schedulers`` and ``random_states``. It consists of tensors, numbers, texts, None, lists,
tuples and dicts alone, so that reading it can run nothing. ``<file>.sha256`` beside it is what
``sha256sum -c`` takes.
"""

import logging
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from mmsam.atomic_file import write_atomically, write_text_atomically
from mmsam.errors import CheckpointError
from mmsam.torch_file import check_kind, read_torch_file

RUN_KEYS = frozenset({'meta', 'state_dict', 'message_hub', 'optimizer'})
"""What a file must hold for a run to go on from it."""

_POINTER = 'last_checkpoint'
_NUMBER = re.compile(r'(?:iter|epoch)_(\d+)\.pth')


def save_training_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a training checkpoint and its digest; an older file of that name stays until then.

    Args:
        content: see the module; numpy arrays and numbers become tensors and numbers.
        path: file to write.

    Raises:
        CheckpointError: something in ``content`` is not plain data; the message says where.
        StorageError: the disk is full, for example; the old file is untouched.
    """
    plain = plain_data(content, path.name)
    digest_path = _digest_path(path)

    def write(partial_path: Path) -> None:
        torch.save(plain, partial_path)
        digests.append(_digest(partial_path))
        # never a new file beside the digest of the old one: without a digest it is still checked
        digest_path.unlink(missing_ok=True)

    digests: list[str] = []
    write_atomically(path, write)
    write_text_atomically(digest_path, f'{digests[0]}  {path.name}\n')


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_training_checkpoint`` wrote.

    Returns:
        Its content; tensors are on the CPU and may be mapped from the file: clone what you keep.

    Raises:
        CheckpointError: no such file, its digest differs, it is damaged, or it lacks what a run
            needs to go on.
    """
    _check_digest(path)
    content = _read(path)
    if not isinstance(content, dict) or not content.keys() >= RUN_KEYS:
        raise CheckpointError(
            f'{path} holds weights without the state of a run: start from them with --load-from.'
        )
    return content


def check_training_checkpoint(path: Path) -> None:
    """Raise where a file is not what was written: by its digest, else as far as it shows.

    Raises:
        CheckpointError: no such file, its digest differs, or it is no binary file.
    """
    if not _check_digest(path):
        _read(path)  # the checksums inside the file


def _check_digest(path: Path) -> bool:
    """Refuse a file that differs from its digest; whether there is a digest."""
    if not path.is_file():
        raise CheckpointError(f'{path}: no such file.')
    try:
        check_kind(path, str(path))
        digest_path = _digest_path(path)
        if not digest_path.is_file():
            return False
        wanted, found = digest_path.read_text(encoding='utf-8').partition(' ')[0], _digest(path)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error}.') from None
    if found != wanted:
        raise CheckpointError(
            f'{path} is damaged: its SHA-256 is {found[:12]}..., {digest_path.name} has '
            f'{wanted[:12]}...'
        )
    return True


def _read(path: Path) -> Any:
    try:
        return read_torch_file(path)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error}.') from None


def name_latest(folder: Path, path: Path) -> None:
    """Write ``folder/last_checkpoint``: the name, relative where the file is in the folder.

    Raises:
        StorageError: it cannot be written.
    """
    name = path.name if path.parent.resolve() == folder.resolve() else str(path)
    write_text_atomically(folder / _POINTER, name)


def training_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the last run in a folder, the latest first, by their number.

    The first is the one that ``last_checkpoint`` names: a higher number is of an earlier run.
    """
    numbered = [path for path in folder.glob('*.pth') if _number(path) >= 0]
    found = sorted(numbered, key=_number, reverse=True)
    pointer = folder / _POINTER
    if pointer.is_file():
        named = folder / pointer.read_text(encoding='utf-8').strip()
        if not named.is_file():
            named = folder / named.name  # the folder was moved
        if named.is_file():
            found = [named, *(path for path in found if _number(path) < _number(named))]
    return found


def _number(path: Path) -> int:
    match = _NUMBER.fullmatch(path.name)
    return int(match[1]) if match else -1


def latest_training_checkpoint(folder: Path, slurm_job: str | None = None) -> Path | None:
    """The latest whole checkpoint of the last run in a folder, or of one Slurm job in it.

    Damaged ones, which may be of any job, are named in a warning and passed over.

    Returns:
        None if there is none at all.

    Raises:
        CheckpointError: only damaged ones are left to choose from.
    """
    damages = []
    for path in training_checkpoints(folder):
        try:
            if slurm_job is None:
                check_training_checkpoint(path)
            elif read_training_checkpoint(path)['meta'].get('slurm_job') != slurm_job:
                continue
        except CheckpointError as error:
            print_log(f'{error} The one before is used.', logger='current', level=logging.WARNING)
            damages.append(str(error))
            continue
        return path
    if damages:
        raise CheckpointError(
            f'{folder} holds no checkpoint to go on from that is whole: {" ".join(damages)}'
        )
    return None


def remove_training_checkpoint(path: Path) -> None:
    """Delete a checkpoint and its digest; it may be gone already."""
    path.unlink(missing_ok=True)
    _digest_path(path).unlink(missing_ok=True)


def plain_data(value: Any, name: str) -> Any:
    """A copy that holds nothing but tensors on the CPU, numbers, texts, None and containers.

    Args:
        value: also numpy arrays (become tensors) and numpy numbers.
        name: where it stands, for the message.

    Raises:
        CheckpointError: something else.
    """
    if value is None:
        return None
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # numpy's float64 and str_ are subclasses
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, np.generic):
        return plain_data(value.item(), name)
    if isinstance(value, Mapping):
        return {
            plain_data(key, f'a key of {name}'): plain_data(item, f'{name}[{key!r}]')
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [plain_data(item, f'{name}[{index}]') for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise CheckpointError(
        f'{name} is a {type(value).__name__}: a checkpoint holds only tensors, numbers, texts, '
        'lists, tuples and dicts.'
    )


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest_path(path: Path) -> Path:
    return path.with_name(f'{path.name}.sha256')
