"""Embeddings of a frozen image encoder on disk: computed once, read by every later epoch and run.

``FOLDER/<fingerprint>/`` belongs to one encoder; the fingerprint is the digest of all that its
embeddings depend on, which ``manifest.json`` there lists. An entry is one file of safetensors,
named by the digest of the image file's bytes and of what is done to the image before it is encoded.
So a changed image, option or encoder has entries of its own, and one that did not change is found
again wherever its file has moved.

An entry gets its name once it is complete, so that a killed process, or several that build at the
same time, leave no half of one. It is not synced to the disk: its checksum tells an entry that a
power failure has damaged, or anything else has, and it is computed again.
"""

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmsam.atomic_file import write_text_atomically
from mmsam.errors import DataError, StorageError
from mmsam.geometry import Orientation, Size, Window

_FORMAT = 1
"""To be raised with whatever changes the pixels of an image before it is encoded."""

_NAME, _LABEL = 'image_embeddings', 'entry'
_HEADER = 512  # bytes of an entry beside its numbers, about
_BLOCK = 1 << 20  # bytes of a file that are read at once


class ImageView(NamedTuple):
    """What an encoder sees of an image file; two that are equal give the same pixels.

    Args:
        path: of the image file.
        value_range, frame: options of ``ImageReading``.
        tile: what is cut out of it, original px; None: nothing.
        longest_side: to which ``ResizeLongestSide`` resizes it, px; None: it stays as it is.
        orientation: how it is turned after that.
    """

    path: str
    value_range: tuple[float, float] | None
    frame: int | None
    tile: Window | None
    longest_side: int | None
    orientation: Orientation


class StoredEmbedding(NamedTuple):
    """An entry.

    Args:
        embedding: (C, S/16, S/16) float16, mapped from the file: not to be written to.
        original_size: (H, W) of the image file, for comparison with its annotation.
    """

    embedding: Tensor
    original_size: Size


class EmbeddingCache:
    """The entries of one encoder.

    Args:
        folder: of the caches of all encoders.
        facts: plain values that an embedding depends on besides the image, see
            ``SAMSegmentor.embedding_facts``; ``shape`` is that of an embedding, (C, S/16, S/16).
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._facts = {**facts, 'storage_dtype': 'float16', 'format': _FORMAT}
        self.fingerprint = _digest(self._facts)[:32]
        self.folder = folder / self.fingerprint
        self.manifest = self.folder / 'manifest.json'
        self.shape: tuple[int, ...] = tuple(facts['shape'])

    @property
    def entry_bytes(self) -> int:
        """What an entry takes on the disk."""
        return _HEADER + 2 * torch.Size(self.shape).numel()

    def write_manifest(self) -> None:
        """Make the folder and its manifest, unless they are there.

        Raises:
            StorageError: it cannot be written.
        """
        text = json.dumps({'fingerprint': self.fingerprint, **self._facts}, indent=1)
        with suppress(OSError, UnicodeDecodeError):
            if self.manifest.read_text(encoding='utf-8') == text:
                return
        write_text_atomically(self.manifest, text)

    def path_of(self, key: str) -> Path:
        return self.folder / f'{key}.safetensors'

    def read(self, key: str) -> StoredEmbedding:
        """The entry of a key of ``entry_key``.

        Raises:
            DataError: it is missing, damaged, or another one under this name.
        """
        path = self.path_of(key)
        try:
            with safe_open(path, 'pt') as file:
                label = json.loads(file.metadata()[_LABEL])
                embedding = file.get_tensor(_NAME)
            height, width = label['original_size']
            is_whole = (tuple(embedding.shape), embedding.dtype) == (self.shape, torch.float16)
            if is_whole and label == self._label(key, embedding, (height, width)):
                return StoredEmbedding(embedding, (height, width))
            reason = 'it is of another image or encoder, or its checksum is wrong'
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            reason = ' '.join(str(error).split())
        raise DataError(
            f'The embedding {path} is damaged or missing ({reason}): a new start computes it again.'
        )

    def is_good(self, key: str) -> bool:
        """Whether an entry can be read."""
        try:
            self.read(key)
        except DataError:
            return False
        return True

    def write(self, key: str, embedding: Tensor, original_size: Size, image: str) -> None:
        """Write an entry, in place of a damaged one.

        Args:
            key: of ``entry_key``.
            embedding: (C, S/16, S/16) of any float type, on the CPU.
            original_size: (H, W) of the image file.
            image: its path, for messages.

        Raises:
            DataError: a value is NaN or beyond the range of float16.
            StorageError: the file cannot be written.
        """
        half = embedding.half().contiguous()
        if not bool(half.isfinite().all()):
            largest = float(embedding.abs().max())  # NaN, if there is one
            raise DataError(
                f'The embedding of image {image} has values up to {largest:.4g}: expected at most '
                f'{torch.finfo(torch.float16).max:.0f}, as float16 holds them; set '
                'embedding_cache=None, or check the weights.'
            )
        label = self._label(key, half, original_size)
        content = save({_NAME: half}, {_LABEL: json.dumps(label)})
        path = self.path_of(key)
        # several processes, also of several machines, may write the same entry
        partial = path.with_name(f'.{key}.{secrets.token_hex(4)}.partial')
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        except OSError as error:
            raise StorageError(f'{path} cannot be written: {error.strerror}.') from None
        finally:
            with suppress(OSError):
                partial.unlink()

    def _label(self, key: str, embedding: Tensor, original_size: Size) -> dict[str, Any]:
        """What an entry tells of itself."""
        label = {
            'fingerprint': self.fingerprint,
            'key': key,
            'original_size': [int(side) for side in original_size],
        }
        # takes half a millisecond for 2 MiB, SHA-256 more than twice as long
        checksum = zlib.crc32(json.dumps(label).encode(), zlib.crc32(embedding.numpy().data))
        return {**label, 'checksum': checksum}


class ImageEmbeddings(NamedTuple):
    """The embeddings of a data set's images, as its pipeline reads them.

    Args:
        cache: holds them all.
        digests: ``digest_of_file`` of each image file by path, when the run began.
    """

    cache: EmbeddingCache
    digests: Mapping[str, str]

    def read(self, view: ImageView) -> StoredEmbedding:
        """The embedding of a view.

        Raises:
            DataError: see ``EmbeddingCache.read``; it names the image, too.
        """
        try:
            return self.cache.read(entry_key(self.digests[view.path], view))
        except DataError as error:
            raise DataError(f'Image {view.path}: {error}') from None


def entry_key(digest: str, view: ImageView) -> str:
    """The name of an entry.

    Args:
        digest: ``digest_of_file`` of the image file.
        view: of which the path does not count.
    """
    return _digest([digest, *view[1:]])


def digest_of_file(path: str) -> str:
    """SHA-256 of an image file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, 'rb') as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f'Cannot read image file {path}: {error.strerror}.') from None
    return digest.hexdigest()


def digest_of_weights(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, shapes and types, wherever they lie."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
