"""Weights in and out: strict loading of SAM's files, writing of stock-compatible ones.

The *stock* layout is upstream's: a flat dict of tensors under ``image_encoder.*``,
``prompt_encoder.*`` and ``mask_decoder.*``. Everything that is read is brought into it, everything
that is written starts from it. A file is only ever read as data: pickled code is refused.
"""

import http.client
import json
import shutil
import struct
import urllib.request
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import safetensors
import safetensors.torch
import torch
from filelock import FileLock
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmsam.atomic_file import write_atomically
from mmsam.errors import CheckpointError
from mmsam.torch_file import check_kind, read_torch_file
from mmsam.weight_layouts import (
    STOCK_PARTS,
    StateDict,
    describe_architecture,
    from_hugging_face,
    hugging_face_config,
    read_grid_size,
    read_image_size,
    to_hugging_face,
)

_DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
_SHOWN_KEYS = 5
_SHOWN_DIGITS = 12

_BASE = 'base_sha256'
_WHOLE = 'whole_sha256'
"""Metadata of a slim file: digests of the weights it builds upon, and of those it makes of them."""

# ---------------------------------------------------------------------------------------- reading


def read_state_dict(source: str) -> StateDict:
    """Read the weights in ``source``, in the stock layout and the precision of the file.

    Understood are official ``.pth`` files, training checkpoints (``{'state_dict': ...}``),
    ``{'model': ...}``, and Hugging Face's ``SamModel``; the prefixes ``module.`` and
    ``_orig_mod.`` of wrapped models are removed. Keys of other models pass unchanged.

    Args:
        source: path of a file, of a folder with ``model.safetensors`` or ``pytorch_model.bin``,
            or an http(s) URL, which is downloaded once to the cache of torch.hub.

    Returns:
        Tensors on the CPU. They may be mapped from the file: clone what you keep.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds something else.
    """
    if source.startswith(('http://', 'https://')):
        path = _download(source)
    else:
        path = _weights_file(Path(source).expanduser())
    try:
        check_kind(path, str(path))
        if path.suffix == '.safetensors':
            content, notes = _read_safetensors(path)
        else:
            content, notes = read_torch_file(path), {}
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error}.') from None
    if _BASE in notes:
        raise CheckpointError(
            f'{path} holds only the tensors that were trained: join it with the weights that the '
            f'training started from (digest {notes[_BASE][:_SHOWN_DIGITS]}...) by '
            f'tools/export_weights.py {path} OUT --base WEIGHTS.'
        )
    state_dict = _without_wrappers(_find_tensors(content, path), path)
    if any(key.startswith('vision_encoder.') for key in state_dict):
        print_log(f'{path} has the layout of Hugging Face: keys converted', logger='current')
        state_dict = from_hugging_face(state_dict)
    return state_dict


def _weights_file(path: Path) -> Path:
    """The file meant by a path, which may be a folder in Hugging Face's manner."""
    names = ('model.safetensors', 'pytorch_model.bin')
    candidates = [path / name for name in names] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise CheckpointError(f'{path} is a folder without {" or ".join(names)}.')
    raise CheckpointError(f'{path} does not exist: expected a file with SAM weights.')


def _download(url: str) -> Path:
    """The cached copy of a URL, downloaded if there is none."""
    name = Path(urlsplit(url).path).name or 'weights'
    # many models are called model.safetensors: the name alone would mix them up
    digest = sha256(url.encode()).hexdigest()[:8]
    folder = Path(torch.hub.get_dir()) / 'checkpoints' / 'mmsam' / digest
    target = folder / name
    if target.is_file():
        return target
    print_log(f'downloading {url} to {target}', logger='current')
    advice = f'give the path of a copy instead, or save one as {target}'

    def fetch(partial_path: Path) -> None:
        request = urllib.request.Request(url, headers={'User-Agent': 'mmsam'})
        try:
            with urllib.request.urlopen(request, timeout=_DOWNLOAD_TIMEOUT) as response:
                with partial_path.open('wb') as file:
                    shutil.copyfileobj(response, file, 1 << 20)
                expected = response.headers.get('Content-Length')
        except (OSError, http.client.HTTPException) as error:
            raise CheckpointError(f'{url} cannot be downloaded ({error}): {advice}.') from None
        size = partial_path.stat().st_size
        if expected is not None and size != int(expected):
            raise CheckpointError(f'{url} ended after {size} of {expected} bytes: {advice}.')
        check_kind(partial_path, url)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # the processes of a node download once: all but the first find the file
        with FileLock(f'{target}.lock'):
            if not target.is_file():
                write_atomically(target, fetch)
    except OSError as error:
        raise CheckpointError(f'{target} cannot be written: {error}.') from None
    return target


def _read_safetensors(path: Path) -> tuple[StateDict, dict[str, str]]:
    """The tensors of a file, and its metadata."""
    try:
        with safetensors.safe_open(path, 'pt', device='cpu') as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        size, expected = path.stat().st_size, _safetensors_size(path)
        if size < expected:
            found = f'is truncated ({size} of {expected} bytes)'
        else:
            found = f'is damaged or no safetensors file ({error})'
        raise CheckpointError(f'{path} {found}.') from None


def _safetensors_size(path: Path) -> int:
    """Bytes that a file announces: 8 for the header's length, the header, the tensors."""
    with path.open('rb') as file:
        start = file.read(8)
        if len(start) < 8:
            return 8
        (header_length,) = struct.unpack('<Q', start)
        header = file.read(min(header_length, path.stat().st_size))
    if len(header) < header_length:
        # not a length at all if it is beyond any header
        return 8 + header_length if header_length < 1 << 27 else 0
    try:
        entries = json.loads(header)
        ends = [entry['data_offsets'][1] for entry in entries.values() if 'data_offsets' in entry]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return 0
    return 8 + header_length + max(ends, default=0)


def _find_tensors(content: Any, path: Path) -> StateDict:
    """The dict of tensors in what a file holds."""
    if isinstance(content, Mapping):
        for key in ('state_dict', 'model'):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path}: expected a dict of tensors, got {type(content).__name__}.')
    others = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if len(others) == len(content):
        raise CheckpointError(f'{path} has no tensors inside, only {show_keys(map(str, others))}.')
    if others:
        kind = type(content[others[0]]).__name__
        raise CheckpointError(f'{path}: expected tensors alone, got {kind} as {others[0]!r}.')
    return {str(key): value for key, value in content.items()}


def _without_wrappers(state_dict: StateDict, path: Path) -> StateDict:
    """Remove the prefixes of torch.compile and of data parallel wrappers."""
    stripped = {key.replace('_orig_mod.', ''): value for key, value in state_dict.items()}
    while all(key.startswith('module.') for key in stripped):
        stripped = {key.removeprefix('module.'): value for key, value in stripped.items()}
    if stripped.keys() != state_dict.keys():
        print_log(f'{path} is of a wrapped model: prefixes removed', logger='current')
    return stripped


# ---------------------------------------------------------------------------------------- loading


def load_weights(model: nn.Module, source: str, prefix: str = '') -> None:
    """Load weights into a model completely, or raise and leave the model as it was.

    Position embeddings and relative positions of another ``img_size`` are resampled, weights in
    another precision are cast; both are logged. The pixel mean and deviation that some files of
    upstream carry are ignored.

    Args:
        model: any module; a distributed wrapper is looked through.
        source: see ``read_state_dict``.
        prefix: load only the tensors whose keys start so, without it: ``'image_encoder.'`` brings
            official weights into a ``SAMBackbone``.

    Raises:
        CheckpointError: the file cannot be read, is of another architecture, lacks a tensor, has
            one too many, or holds NaN or infinity.
    """
    if is_model_wrapper(model):
        model = cast(nn.Module, model.module)
    state_dict = read_state_dict(source)
    if prefix:
        state_dict = _select(state_dict, prefix, source)
    for key in ('pixel_mean', 'pixel_std'):
        state_dict.pop(key, None)
    target = model.state_dict()

    found, wanted = describe_architecture(state_dict), describe_architecture(target)
    if found and wanted and found != wanted:
        raise CheckpointError(f'{source} has {found} weights, the config builds {wanted}.')
    resampled = _check_fit(state_dict, target, source)
    check_finite(state_dict, source)
    try:
        model.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f'{source} does not fit the model: {error}') from None

    log = partial(print_log, logger='current')
    if resampled:
        old, new = read_image_size(state_dict), read_image_size(target)
        log(f'{resampled} position embeddings resampled from img_size {old} to {new}')
    casts = {(str(state_dict[key].dtype), str(target[key].dtype)) for key in target}
    for from_dtype, to_dtype in sorted(casts):
        if from_dtype != to_dtype:
            log(f'{from_dtype} weights of {source} cast to {to_dtype}')
    number = sum(value.numel() for value in state_dict.values())
    log(f'loaded {len(state_dict)} tensors ({number / 1e6:.1f} M values) from {source}')


def _select(state_dict: StateDict, prefix: str, source: str) -> StateDict:
    """The entries whose keys start with the prefix, without it."""
    selected = {
        key.removeprefix(prefix): value
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
    if not selected:
        raise CheckpointError(f'{source} has no keys {prefix}*, but {show_keys(state_dict)}.')
    return selected


def _check_fit(state_dict: StateDict, target: StateDict, source: str) -> int:
    """Refuse what does not fit key by key; the number of tensors that will be resampled."""
    missing = [key for key in target if key not in state_dict]
    unexpected = [key for key in state_dict if key not in target]
    resampled = 0
    wrong_shape = []
    old_grid, new_grid = read_grid_size(state_dict), read_grid_size(target)
    for key, wanted in target.items():
        got = state_dict.get(key)
        if got is None or got.shape == wanted.shape:
            continue
        if _is_resampled(key, got, wanted, old_grid, new_grid):
            resampled += 1
        else:
            wrong_shape.append(f'{key} {tuple(got.shape)} for {tuple(wanted.shape)}')
    problems = [
        f'{len(keys)} {kind} ({show_keys(keys)})'
        for kind, keys in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('of another shape', wrong_shape),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f'{source} does not fit the {len(target)} tensors of the model: {", ".join(problems)}.'
        )
    return resampled


def _is_resampled(key: str, got: Tensor, wanted: Tensor, old_grid: int, new_grid: int) -> bool:
    """Whether the shapes differ by ``img_size`` alone, which the image encoder adapts itself.

    The relative positions of a window keep their length: where it differs, one of the two
    attends globally, and resampling would load a different model without a word.
    """
    if got.ndim != wanted.ndim or got.shape[-1] != wanted.shape[-1] or not old_grid:
        return False
    name = key.rpartition('.')[2]
    if name == 'pos_embed':
        return got.ndim == 4
    lengths = (2 * old_grid - 1, 2 * new_grid - 1)
    return name in ('rel_pos_h', 'rel_pos_w') and (got.shape[0], wanted.shape[0]) == lengths


def check_finite(state_dict: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        CheckpointError: with ``source`` and the first such tensor.
    """
    for key, value in state_dict.items():
        if not value.is_floating_point() or not value.numel():
            continue
        # NaN passes through: as good as value.isfinite().all(), which takes 18 times as long
        low_high = (value if value.element_size() > 1 else value.float()).aminmax()
        if not bool(torch.stack(low_high).isfinite().all()):
            raise CheckpointError(f'{source} has NaN or infinity in {key}.')


def show_keys(keys: Iterable[str]) -> str:
    """The first few keys, for a message."""
    shown = list(keys)
    return ', '.join(shown[:_SHOWN_KEYS]) + (', ...' if len(shown) > _SHOWN_KEYS else '')


# ---------------------------------------------------------------------------------------- writing


def stock_state_dict(state_dict: Mapping[str, Tensor]) -> StateDict:
    """What upstream's loaders take strictly: the three parts alone, float32, on the CPU.

    Args:
        state_dict: of a SAM in the stock layout, also with tensors of other modules, which are
            left out.

    Returns:
        Contiguous copies under the same keys.

    Raises:
        CheckpointError: a part is missing, or a value is NaN or infinite.
    """
    missing = [part for part in STOCK_PARTS if not any(key.startswith(part) for key in state_dict)]
    if missing:
        raise CheckpointError(
            f'The weights are no whole SAM: no keys {"*, ".join(missing)}*, '
            f'but {show_keys(state_dict)}.'
        )
    stock = {
        key: value.detach().to('cpu', torch.float32, copy=True).contiguous()
        for key, value in state_dict.items()
        if key.startswith(STOCK_PARTS)
    }
    check_finite(stock, 'The state dict')
    return stock


def save_stock_weights(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Write ``stock_state_dict(state_dict)`` as the file that upstream's ``checkpoint=`` takes.

    A file of that name is replaced only when the new one is complete.

    Raises:
        CheckpointError: see ``stock_state_dict``.
        StorageError: the file cannot be written.
    """
    stock = stock_state_dict(state_dict)
    write_atomically(Path(path), lambda partial_path: torch.save(stock, partial_path))


def save_hugging_face(state_dict: Mapping[str, Tensor], folder: str | Path) -> None:
    """Write a folder for ``transformers.SamModel.from_pretrained``: weights and ``config.json``.

    Raises:
        CheckpointError: see ``stock_state_dict``.
        StorageError: the folder cannot be written.
    """
    stock = stock_state_dict(state_dict)
    config = json.dumps(hugging_face_config(stock), indent=2).encode()
    # save_file would make a file that only its owner may read
    weights = safetensors.torch.save(to_hugging_face(stock), {'format': 'pt'})
    write_atomically(Path(folder) / 'model.safetensors', lambda path: _write_bytes(path, weights))
    write_atomically(Path(folder) / 'config.json', lambda path: _write_bytes(path, config))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


# ------------------------------------------------------------------------------------- slim files


def weights_digest(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, shapes and values of a stock state dict, in the order of the names.

    It belongs to the weights, not to a file: the same weights as ``.pth`` and as safetensors, in
    the stock and in Hugging Face's layout, have the same one.

    Args:
        state_dict: see ``stock_state_dict``.
    """
    digest = sha256()
    for key, value in sorted(stock_state_dict(state_dict).items()):
        digest.update(f'{key} {tuple(value.shape)}\n'.encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()


def save_slim_weights(state_dict: Mapping[str, Tensor], base: str, path: Path) -> None:
    """Write only the tensors that differ from ``base``, a safetensors file.

    Its metadata names the ``architecture`` and the digests of the base and of the whole weights.

    Args:
        state_dict: see ``stock_state_dict``.
        base: what the training started from, see ``read_state_dict``.
        path: file to write, ``*.safetensors``.

    Raises:
        CheckpointError: one of the two is no whole SAM, they have other tensors, or all are equal.
        StorageError: the file cannot be written.
    """
    weights, start = stock_state_dict(state_dict), stock_state_dict(read_state_dict(base))
    if odd := weights.keys() ^ start.keys():
        raise CheckpointError(
            f'{base} is of another model: only one of the two has {show_keys(sorted(odd))}.'
        )
    changed = {key: value for key, value in weights.items() if not _same_bits(value, start[key])}
    if not changed:
        raise CheckpointError(f'Nothing was trained: the weights are those of {base}.')
    notes = {
        'format': 'pt',
        'architecture': str(describe_architecture(weights)),
        _BASE: weights_digest(start),
        _WHOLE: weights_digest(weights),
    }
    content = safetensors.torch.save(changed, notes)
    write_atomically(path, lambda partial_path: _write_bytes(partial_path, content))


def is_slim_file(source: str) -> bool:
    """Whether ``source`` is a file of ``save_slim_weights``.

    Raises:
        CheckpointError: it is a damaged safetensors file.
    """
    path = Path(source)
    return path.suffix == '.safetensors' and path.is_file() and _BASE in _read_safetensors(path)[1]


def join_slim_weights(path: Path, base: str) -> StateDict:
    """The whole weights, bit for bit, of a slim file and what its training started from.

    Args:
        path: of ``save_slim_weights``.
        base: in any layout and format, see ``read_state_dict``.

    Raises:
        CheckpointError: ``base`` has other weights, or a file is damaged.
    """
    changed, notes = _read_safetensors(path)
    start = stock_state_dict(read_state_dict(base))
    found = weights_digest(start)
    if found != notes[_BASE]:
        raise CheckpointError(
            f'{path} builds upon weights with the digest {notes[_BASE][:_SHOWN_DIGITS]}..., '
            f'{base} has {found[:_SHOWN_DIGITS]}...'
        )
    whole = {**start, **changed}
    if weights_digest(whole) != notes.get(_WHOLE):
        raise CheckpointError(f'{path} is damaged: with {base} it does not make what it was.')
    return whole


def _same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two float32 tensors are equal, also in the sign of a zero."""
    return torch.equal(first.view(torch.int32), second.view(torch.int32))
