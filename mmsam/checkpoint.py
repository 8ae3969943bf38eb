"""Weights in and out: strict loading of SAM's files, atomic writing of stock-compatible ones.

The *stock* layout is upstream's: a flat dict of tensors under ``image_encoder.*``,
``prompt_encoder.*`` and ``mask_decoder.*``. Everything that is read is brought into it, everything
that is written starts from it. A file is only ever read as data: pickled code is refused.
"""

import http.client
import json
import os
import pickle
import re
import shutil
import struct
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
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

from mmsam.errors import CheckpointError

StateDict = dict[str, Tensor]

STOCK_PARTS = ('image_encoder.', 'prompt_encoder.', 'mask_decoder.')

ARCHITECTURE_NAMES = {(768, 12): 'vit_b', (1024, 24): 'vit_l', (1280, 32): 'vit_h'}
"""Name of a published image encoder by its width and depth."""

_DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
_SHOWN_KEYS = 5

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
        _check_kind(path, str(path))
        is_safetensors = path.suffix == '.safetensors'
        content = _read_safetensors(path) if is_safetensors else _read_torch(path)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error}.') from None
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
        _check_kind(partial_path, url)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # the processes of a node download once: all but the first find the file
        with FileLock(f'{target}.lock'):
            if not target.is_file():
                _write_atomically(target, fetch)
    except OSError as error:
        raise CheckpointError(f'{target} cannot be written: {error}.') from None
    return target


def _check_kind(path: Path, name: str) -> None:
    """Refuse what is no binary file at all, and say what it is."""
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


def _read_safetensors(path: Path) -> StateDict:
    try:
        return safetensors.torch.load_file(path, device='cpu')
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


def _read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, read as data alone."""
    size = path.stat().st_size
    with path.open('rb') as file:
        is_zip = file.read(2) == b'PK'
    if is_zip:
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch.load does not look at the checksums
        except zipfile.BadZipFile:
            raise CheckpointError(
                f'{path} is truncated: it ends after {size} bytes without its table of contents.'
            ) from None
        if damaged is not None:
            raise CheckpointError(f'{path} is damaged: the checksum of {damaged} does not fit.')
    try:
        with torch.serialization.safe_globals([(_Ignored, name) for name in _IGNORED_GLOBALS]):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)
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
    if is_zip:
        raise CheckpointError(f'{path} is a zip archive without PyTorch weights.')
    raise CheckpointError(
        f'{path} is truncated, damaged or no file of PyTorch weights ({size} bytes).'
    )


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
        raise CheckpointError(f'{path} has no tensors inside, only {_show(map(str, others))}.')
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

    found, wanted = _describe_architecture(state_dict), _describe_architecture(target)
    if found and wanted and found != wanted:
        raise CheckpointError(f'{source} has {found} weights, the config builds {wanted}.')
    resampled = _check_fit(state_dict, target, source)
    _check_finite(state_dict, source)
    try:
        model.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f'{source} does not fit the model: {error}') from None

    log = partial(print_log, logger='current')
    if resampled:
        old, new = _image_size(state_dict), _image_size(target)
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
        raise CheckpointError(f'{source} has no keys {prefix}*, but {_show(state_dict)}.')
    return selected


def _encoder_prefix(state_dict: StateDict) -> str | None:
    """What stands before the image encoder's own keys; None without an image encoder."""
    end = 'patch_embed.proj.weight'
    for key in state_dict:
        prefix = key.removesuffix(end)
        position = state_dict.get(f'{prefix}pos_embed')
        if prefix != key and position is not None and position.ndim == 4:
            return prefix
    return None


def _depth(state_dict: StateDict, prefix: str) -> int:
    """Number of modules in the list with this prefix, such as ``image_encoder.blocks.``."""
    return len({key[len(prefix) :].split('.')[0] for key in state_dict if key.startswith(prefix)})


def _describe_architecture(state_dict: StateDict) -> str | None:
    """'vit_b', or the width and depth of an unnamed image encoder; None without one."""
    prefix = _encoder_prefix(state_dict)
    if prefix is None:
        return None
    width = state_dict[f'{prefix}pos_embed'].shape[-1]
    depth = _depth(state_dict, f'{prefix}blocks.')
    return ARCHITECTURE_NAMES.get((width, depth), f'ViT (width {width}, depth {depth})')


def _grid_size(state_dict: StateDict) -> int:
    """Patches a side of the image encoder; 0 without one."""
    prefix = _encoder_prefix(state_dict)
    return 0 if prefix is None else state_dict[f'{prefix}pos_embed'].shape[1]


def _image_size(state_dict: StateDict) -> int:
    """``img_size`` in px of a state dict with an image encoder."""
    prefix = _encoder_prefix(state_dict)
    return _grid_size(state_dict) * state_dict[f'{prefix}patch_embed.proj.weight'].shape[-1]


def _check_fit(state_dict: StateDict, target: StateDict, source: str) -> int:
    """Refuse what does not fit key by key; the number of tensors that will be resampled."""
    missing = [key for key in target if key not in state_dict]
    unexpected = [key for key in state_dict if key not in target]
    resampled = 0
    wrong_shape = []
    old_grid, new_grid = _grid_size(state_dict), _grid_size(target)
    for key, wanted in target.items():
        got = state_dict.get(key)
        if got is None or got.shape == wanted.shape:
            continue
        if _is_resampled(key, got, wanted, old_grid, new_grid):
            resampled += 1
        else:
            wrong_shape.append(f'{key} {tuple(got.shape)} for {tuple(wanted.shape)}')
    problems = [
        f'{len(keys)} {kind} ({_show(keys)})'
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


def _check_finite(state_dict: StateDict, source: str) -> None:
    for key, value in state_dict.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(f'{source} has NaN or infinity in {key}.')


def _show(keys: Iterable[str]) -> str:
    """The first few keys."""
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
            f'but {_show(state_dict)}.'
        )
    stock = {
        key: value.detach().to('cpu', torch.float32, copy=True).contiguous()
        for key, value in state_dict.items()
        if key.startswith(STOCK_PARTS)
    }
    _check_finite(stock, 'The state dict')
    return stock


def save_stock_weights(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Write ``stock_state_dict(state_dict)`` as the file that upstream's ``checkpoint=`` takes.

    A file of that name is replaced only when the new one is complete.

    Raises:
        CheckpointError: see ``stock_state_dict``; or the file cannot be written.
    """
    stock = stock_state_dict(state_dict)
    _write_atomically(Path(path), lambda partial_path: torch.save(stock, partial_path))


def save_hugging_face(state_dict: Mapping[str, Tensor], folder: str | Path) -> None:
    """Write a folder for ``transformers.SamModel.from_pretrained``: weights and ``config.json``.

    Raises:
        CheckpointError: see ``stock_state_dict``; or the folder cannot be written.
    """
    stock = stock_state_dict(state_dict)
    config = json.dumps(hugging_face_config(stock), indent=2).encode()
    weights = to_hugging_face(stock)
    _write_atomically(
        Path(folder) / 'model.safetensors',
        # save_file would make a file that only its owner may read
        lambda path: _write_bytes(path, safetensors.torch.save(weights, {'format': 'pt'})),
    )
    _write_atomically(Path(folder) / 'config.json', lambda path: _write_bytes(path, config))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new file in the same folder, then give it the name ``path``."""
    partial_path = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial_path)
        with partial_path.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(partial_path, path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        # torch.save reports a full disk as a RuntimeError
        raise CheckpointError(f'{path} cannot be written: {error}.') from None
    finally:
        partial_path.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------- Hugging Face

_HUGGING_FACE_PREFIXES = (
    ('image_encoder.patch_embed.proj.', 'vision_encoder.patch_embed.projection.'),
    ('image_encoder.blocks.', 'vision_encoder.layers.'),
    ('image_encoder.neck.0.', 'vision_encoder.neck.conv1.'),
    ('image_encoder.neck.1.', 'vision_encoder.neck.layer_norm1.'),
    ('image_encoder.neck.2.', 'vision_encoder.neck.conv2.'),
    ('image_encoder.neck.3.', 'vision_encoder.neck.layer_norm2.'),
    ('image_encoder.', 'vision_encoder.'),
    ('prompt_encoder.point_embeddings.', 'prompt_encoder.point_embed.'),
    ('prompt_encoder.mask_downscaling.0.', 'prompt_encoder.mask_embed.conv1.'),
    ('prompt_encoder.mask_downscaling.1.', 'prompt_encoder.mask_embed.layer_norm1.'),
    ('prompt_encoder.mask_downscaling.3.', 'prompt_encoder.mask_embed.conv2.'),
    ('prompt_encoder.mask_downscaling.4.', 'prompt_encoder.mask_embed.layer_norm2.'),
    ('prompt_encoder.mask_downscaling.6.', 'prompt_encoder.mask_embed.conv3.'),
    ('mask_decoder.output_upscaling.0.', 'mask_decoder.upscale_conv1.'),
    ('mask_decoder.output_upscaling.1.', 'mask_decoder.upscale_layer_norm.'),
    ('mask_decoder.output_upscaling.3.', 'mask_decoder.upscale_conv2.'),
    (
        'mask_decoder.transformer.norm_final_attn.',
        'mask_decoder.transformer.layer_norm_final_attn.',
    ),
)
"""Beginnings of keys, stock and in transformers' ``SamModel``; the first that fits counts."""

_FREQUENCIES = 'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix'
_HUGGING_FACE_FREQUENCIES = (
    'shared_image_embedding.positional_embedding',
    'prompt_encoder.shared_embedding.positional_embedding',
)
"""One matrix, which ``SamModel`` has in two places; its files have one or both."""

_MLP = r'mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+)'


def to_hugging_face(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Stock keys to those of transformers' ``SamModel``; the tensors stay as they are.

    Source: transformers 5.23.0, ``models/sam/modeling_sam.py`` (names of the modules).
    """
    last_layers: dict[str, int] = {}
    for key in state_dict:
        if layer := re.fullmatch(rf'({_MLP}\.)layers\.(\d+)\.\w+', key):
            last_layers[layer[1]] = max(last_layers.get(layer[1], 0), int(layer[2]))
    converted = {}
    for key, value in state_dict.items():
        if key == _FREQUENCIES:
            for place in _HUGGING_FACE_FREQUENCIES:
                converted[place] = value.clone()  # safetensors refuses shared memory
        elif layer := re.fullmatch(rf'({_MLP}\.)layers\.(\d+)\.(\w+)', key):
            head, index, last = layer[1], int(layer[2]), last_layers[layer[1]]
            inner = {0: 'proj_in', last: 'proj_out'}.get(index, f'layers.{index - 1}')
            converted[f'{head}{inner}.{layer[3]}'] = value
        else:
            renamed = _replace_prefix(key, _HUGGING_FACE_PREFIXES)
            converted[re.sub(r'\.norm(\d)\.', r'.layer_norm\1.', renamed)] = value
    return converted


def from_hugging_face(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Keys of transformers' ``SamModel`` to stock keys; unknown ones pass unchanged.

    Raises:
        CheckpointError: the two copies of the frequencies of the positional encoding differ.
    """
    inner_layers: dict[str, int] = {}
    for key in state_dict:
        if layer := re.fullmatch(rf'({_MLP}\.)layers\.(\d+)\.\w+', key):
            inner_layers[layer[1]] = max(inner_layers.get(layer[1], 0), int(layer[2]) + 1)
    back = tuple((theirs, stock) for stock, theirs in _HUGGING_FACE_PREFIXES)
    converted: StateDict = {}
    for key, value in state_dict.items():
        if key in _HUGGING_FACE_FREQUENCIES:
            if not torch.equal(converted.setdefault(_FREQUENCIES, value), value):
                raise CheckpointError(f'{" and ".join(_HUGGING_FACE_FREQUENCIES)} differ.')
        elif layer := re.fullmatch(rf'({_MLP}\.)(proj_in|proj_out|layers\.\d+)\.(\w+)', key):
            head, inner = layer[1], layer[2]
            indexes = {'proj_in': 0, 'proj_out': inner_layers.get(head, 0) + 1}
            index = indexes[inner] if inner in indexes else int(inner.split('.')[1]) + 1
            converted[f'{head}layers.{index}.{layer[3]}'] = value
        else:
            renamed = _replace_prefix(key, back)
            converted[re.sub(r'\.layer_norm(\d)\.', r'.norm\1.', renamed)] = value
    return converted


def _replace_prefix(key: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def hugging_face_config(state_dict: StateDict) -> dict[str, Any]:
    """The ``config.json`` of a ``SamModel`` for these weights, read off their shapes.

    Args:
        state_dict: a whole SAM in the stock layout. Its mask decoder has 8 heads: that number
            is in no shape.
    """
    blocks = 'image_encoder.blocks.'
    depth = _depth(state_dict, blocks)
    width = state_dict['image_encoder.pos_embed'].shape[-1]
    lengths = [state_dict[f'{blocks}{index}.attn.rel_pos_h'].shape[0] for index in range(depth)]
    global_length = 2 * _grid_size(state_dict) - 1
    windows = [length for length in lengths if length != global_length]
    head_width = state_dict[f'{blocks}0.attn.rel_pos_h'].shape[1]
    image_size = _image_size(state_dict)
    patch_size = image_size // _grid_size(state_dict)
    decoder = 'mask_decoder.'
    iou_head = f'{decoder}iou_prediction_head.layers.'
    embed_dim = state_dict[f'{decoder}iou_token.weight'].shape[1]
    return {
        'architectures': ['SamModel'],
        'model_type': 'sam',
        'vision_config': {
            'hidden_size': width,
            'num_hidden_layers': depth,
            'num_attention_heads': width // head_width,
            'image_size': image_size,
            'patch_size': patch_size,
            'output_channels': embed_dim,
            'mlp_dim': state_dict[f'{blocks}0.mlp.lin1.weight'].shape[0],
            'num_pos_feats': state_dict[_FREQUENCIES].shape[1],
            'window_size': (windows[0] + 1) // 2 if windows else 14,
            'global_attn_indexes': [
                index for index, length in enumerate(lengths) if length == global_length
            ],
        },
        'prompt_encoder_config': {
            'hidden_size': embed_dim,
            'image_size': image_size,
            'patch_size': patch_size,
            'mask_input_channels': state_dict['prompt_encoder.mask_downscaling.3.weight'].shape[0],
        },
        'mask_decoder_config': {
            'hidden_size': embed_dim,
            'mlp_dim': state_dict[f'{decoder}transformer.layers.0.mlp.lin1.weight'].shape[0],
            'num_hidden_layers': _depth(state_dict, f'{decoder}transformer.layers.'),
            'num_multimask_outputs': state_dict[f'{decoder}mask_tokens.weight'].shape[0] - 1,
            'iou_head_depth': _depth(state_dict, iou_head),
            'iou_head_hidden_dim': state_dict[f'{iou_head}0.weight'].shape[0],
            # SamModel's default is 1e-6 here, unlike upstream
            'layer_norm_eps': 1e-5,
        },
    }
