import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from mmsam.embedding_cache import (
    EmbeddingCache,
    ImageEmbeddings,
    ImageView,
    digest_of_file,
    digest_of_weights,
    entry_key,
)
from mmsam.errors import DataError, StorageError
from mmsam.geometry import Orientation, Window

FACTS = dict(shape=[3, 4, 5], weights='aa', mean=[1.0])
KEY, OTHER_KEY = 'k' * 64, 'o' * 64
SIZE = (70, 90)
VIEW = ImageView('images/a.png', None, None, None, 64, Orientation())


@pytest.fixture
def cache(tmp_path) -> EmbeddingCache:
    cache = EmbeddingCache(tmp_path, FACTS)
    cache.write_manifest()
    cache.write(KEY, torch.linspace(-8, 8, 60).reshape(3, 4, 5), SIZE, 'a.png')
    return cache


def test_an_entry_is_what_was_written_in_float16(cache):
    stored = cache.read(KEY)
    assert torch.equal(stored.embedding, torch.linspace(-8, 8, 60).reshape(3, 4, 5).half())
    assert stored.original_size == SIZE
    assert sorted(path.name for path in cache.folder.iterdir()) == [
        f'{KEY}.safetensors', 'manifest.json',
    ]  # fmt: skip


def test_the_disk_use_is_known_ahead(tmp_path):
    cache = EmbeddingCache(tmp_path, dict(shape=[256, 64, 64]))
    cache.write_manifest()
    cache.write(KEY, torch.zeros(256, 64, 64), SIZE, 'a.png')
    size = cache.path_of(KEY).stat().st_size
    assert 2 * 256 * 64 * 64 < size <= cache.entry_bytes < size + 512


def test_the_manifest_tells_what_the_fingerprint_is_made_of(cache):
    content = json.loads((cache.folder / 'manifest.json').read_text())
    assert content.pop('fingerprint') == cache.folder.name
    assert content == {**FACTS, 'storage_dtype': 'float16', 'format': 1}
    text = json.dumps(content, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest().startswith(cache.folder.name)


def test_a_manifest_is_written_once_and_repaired(cache):
    path = cache.folder / 'manifest.json'
    before, text = path.stat().st_mtime_ns, path.read_text()
    cache.write_manifest()
    assert path.stat().st_mtime_ns == before
    path.write_text(text[:20])
    cache.write_manifest()
    assert path.read_text() == text


@pytest.mark.parametrize('change', [dict(weights='ab'), dict(mean=[2.0]), dict(more=1)])
@pytest.mark.trap(13)
def test_another_encoder_has_another_folder(cache, tmp_path, change):
    other = EmbeddingCache(tmp_path, {**FACTS, **change})
    assert other.folder != cache.folder
    assert not other.is_good(KEY)


@pytest.mark.parametrize('byte', [4, 40, 100, 200, 300, 340, 350, -1])
@pytest.mark.bad_input(91)
def test_a_flipped_bit_is_seen_wherever_it_is(cache, byte):
    content = bytearray(cache.path_of(KEY).read_bytes())
    content[byte] ^= 4
    cache.path_of(KEY).write_bytes(content)
    assert_refused(cache)


@pytest.mark.parametrize('length', [0, 5, 100, -60, -1])
@pytest.mark.bad_input(91)
def test_a_truncated_entry_is_seen(cache, length):
    path = cache.path_of(KEY)
    path.write_bytes(path.read_bytes()[:length])
    assert_refused(cache)


@pytest.mark.bad_input(91)
def test_an_entry_of_another_image_is_seen(cache):
    cache.write(OTHER_KEY, torch.zeros(3, 4, 5), SIZE, 'b.png')
    cache.path_of(OTHER_KEY).replace(cache.path_of(KEY))
    assert_refused(cache)


@pytest.mark.bad_input(91)
def test_an_entry_of_another_encoder_is_seen(cache, tmp_path):
    other = EmbeddingCache(tmp_path, {**FACTS, 'weights': 'ab'})
    other.write_manifest()
    other.write(KEY, torch.zeros(3, 4, 5), SIZE, 'a.png')
    other.path_of(KEY).replace(cache.path_of(KEY))
    assert_refused(cache)


def assert_refused(cache: EmbeddingCache) -> None:
    assert not cache.is_good(KEY)
    with pytest.raises(DataError, match=f'{cache.path_of(KEY)} is damaged or missing') as error:
        cache.read(KEY)
    assert '\n' not in str(error.value)


def test_a_missing_entry_names_its_image(cache, tmp_path):
    embeddings = ImageEmbeddings(cache, {'images/a.png': '12'})
    with pytest.raises(DataError, match=r'Image images/a.png: The embedding .*No such file'):
        embeddings.read(VIEW)
    cache.write(entry_key('12', VIEW), torch.zeros(3, 4, 5), SIZE, 'a.png')
    assert embeddings.read(VIEW).original_size == SIZE


@pytest.mark.parametrize(('value', 'shown'), [(1e5, '1e\\+05'), (float('nan'), 'nan')])
def test_what_float16_cannot_hold_is_refused_by_name(cache, value, shown):
    embedding = torch.zeros(3, 4, 5)
    embedding[1, 2, 3] = value
    with pytest.raises(DataError, match=f'of image x/b.png has values up to {shown}: .* 65504'):
        cache.write(OTHER_KEY, embedding, SIZE, 'x/b.png')
    assert not cache.path_of(OTHER_KEY).exists()


def test_a_full_disk_leaves_nothing_half(cache, monkeypatch):
    def write_some(path: Path, content: bytes) -> None:
        with path.open('wb') as file:
            file.write(content[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_bytes', write_some)
    with pytest.raises(StorageError, match='cannot be written: No space left on device'):
        cache.write(OTHER_KEY, torch.zeros(3, 4, 5), SIZE, 'b.png')
    assert len(list(cache.folder.iterdir())) == 2
    assert cache.is_good(KEY)


@pytest.mark.parametrize(
    'change',
    [
        dict(value_range=(0.0, 65535.0)),
        dict(frame=1),
        dict(tile=Window(0, 0, 32, 32)),
        dict(tile=Window(0, 8, 32, 32)),
        dict(longest_side=128),
        dict(longest_side=None),
        dict(orientation=Orientation(True, 0)),
        dict(orientation=Orientation(False, 3)),
    ],
    ids=str,
)
@pytest.mark.trap(13)
def test_another_view_of_an_image_is_another_entry(change):
    assert entry_key('12', VIEW._replace(**change)) != entry_key('12', VIEW)


@pytest.mark.trap(13)
def test_the_bytes_of_a_file_count_and_its_name_does_not(tmp_path):
    """Two folders with files of the same name, and a file that was moved."""
    paths = [tmp_path / name for name in ('a', 'b', 'c')]
    for path, content in zip(paths, (b'one', b'two', b'one'), strict=True):
        path.mkdir()
        (path / 'page_1.png').write_bytes(content)
    keys = []
    for path in paths:
        view = VIEW._replace(path=str(path / 'page_1.png'))
        keys.append(entry_key(digest_of_file(view.path), view))
    assert keys[0] != keys[1] and keys[0] == keys[2]
    assert digest_of_file(str(paths[0] / 'page_1.png')) == hashlib.sha256(b'one').hexdigest()
    with pytest.raises(DataError, match='no_such.png: No such file'):
        digest_of_file('no_such.png')


def test_a_digest_of_weights_sees_values_names_shapes_and_types():
    weight = torch.arange(6.0).reshape(2, 3)
    state = {'a': weight, 'b': torch.zeros(2)}
    digest = digest_of_weights(state)
    assert digest == digest_of_weights({'b': torch.zeros(2), 'a': weight.t().contiguous().t()})
    changed = weight.clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(9.0))
    for other in (
        {**state, 'a': changed},
        {**state, 'a': weight.reshape(3, 2)},
        {**state, 'a': weight.double()},
        {'c': weight, 'b': torch.zeros(2)},
        {'a': weight},
    ):
        assert digest_of_weights(other) != digest
