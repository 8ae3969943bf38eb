import errno
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cached_run import FLIPS, IMG_SIZE, Build, dataset, encoded_images, entries
from mmengine.dataset import ConcatDataset
from tiny_run import write_dataset
from tiny_sam import build_segmentor
from two_ranks import fork_two_ranks

from mmsam import stop_signal
from mmsam.datasets import EpochIndex
from mmsam.embedding_cache import EmbeddingCache
from mmsam.engine import embedding_build
from mmsam.errors import ConfigError, DataError, StoppedError, StorageError

N = 10
"""Embeddings of the data set: five images with an object, in two orientations."""


@pytest.fixture
def root(data, tmp_path) -> Path:
    """A copy of the data that a test may change."""
    return Path(shutil.copytree(data, tmp_path / 'data'))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / 'embeddings'


def first_image(root: Path) -> Path:
    return root / 'images' / 'train_1.png'


# --------------------------------------------------------------------- what is computed, and when


def test_nothing_is_computed_twice(data, folder):
    build = Build(folder)
    assert build.use(dataset(data)) == N
    assert build.use(dataset(data)) == 0
    assert f'{N} of {N} embeddings are to be computed and take' in build.lines[0]
    assert f'in {folder}' in build.lines[0] and 'are free' in build.lines[0]
    assert f'{N} of {N} are computed' in build.lines[-2]
    assert f'all {N} embeddings are in {folder}' in build.lines[-1]
    assert build.signs >= N


@pytest.mark.trap(13)
def test_a_changed_image_is_computed_again_alone(root, folder):
    """Under the same name; the embeddings of the old one are not read."""
    Build(folder).use(dataset(root))
    path = first_image(root)
    image = cv2.imread(str(path))
    cv2.imwrite(str(path), 255 - image)
    cached = dataset(root)
    assert Build(folder).use(cached) == 2
    expected = Build(folder.parent / 'other')
    expected.use(fresh := dataset(root))
    for place in range(5):
        index = EpochIndex(place, 0, 0)
        ours, theirs = (one[index]['image_embeddings'] for one in (cached, fresh))
        assert torch.equal(ours, theirs)


def test_a_moved_or_renamed_image_is_found_again(root, folder, tmp_path):
    Build(folder).use(dataset(root))
    moved = Path(shutil.move(root, tmp_path / 'elsewhere'))
    assert Build(folder).use(dataset(moved)) == 0


@pytest.mark.trap(13)
def test_changed_weights_compute_all_again_and_the_old_ones_stay(data, folder):
    model = build_segmentor(IMG_SIZE)
    assert Build(folder, model).use(cached := dataset(data)) == N
    before = cached[EpochIndex(0, 0, 0)]['image_embeddings']
    bias = model.image_encoder.blocks[0].attn.qkv.bias
    old = bias.detach().clone()
    with torch.no_grad():
        bias[0] += 1e-3
    assert Build(folder, model).use(cached) == N
    assert not torch.equal(cached[EpochIndex(0, 0, 0)]['image_embeddings'], before)
    with torch.no_grad():
        bias.copy_(old)
    assert Build(folder, model).use(cached) == 0
    assert torch.equal(cached[EpochIndex(0, 0, 0)]['image_embeddings'], before)
    assert len(entries(folder)) == 2 * N


@pytest.mark.parametrize(
    'option', [dict(std=(58, 57, 58)), dict(mean=(0, 0, 0))], ids=['std', 'mean']
)
@pytest.mark.trap(13)
def test_other_pixel_values_compute_all_again(data, folder, option):
    Build(folder).use(dataset(data))
    model = build_segmentor(IMG_SIZE)
    for name, value in option.items():
        getattr(model.data_preprocessor, name).copy_(torch.tensor(value).view(3, 1, 1))
    assert Build(folder, model).use(dataset(data)) == N


@pytest.mark.trap(13)
def test_weights_of_another_size_are_another_encoder():
    facts = [build_segmentor(size).embedding_facts() for size in (64, 128)]
    assert EmbeddingCache(Path(), facts[0]).folder != EmbeddingCache(Path(), facts[1]).folder
    assert [fact['shape'] for fact in facts] == [[256, 4, 4], [256, 8, 8]]


@pytest.mark.trap(13)
def test_weights_with_other_windows_are_another_encoder():
    """Whose weights have the same names, shapes and values."""
    arch = dict(embed_dim=48, depth=2, num_heads=3, global_attn_indexes=(1,))
    models = [build_segmentor(64, {**arch, 'window_size': 4}), build_segmentor(64, arch)]
    facts = [model.embedding_facts() for model in models]
    assert facts[0]['blocks'] == [[3, 4], [3, 0]]
    assert facts[1]['blocks'] == [[3, 14], [3, 0]]


def test_a_killed_build_goes_on_where_it_was(data, folder, monkeypatch):
    write = EmbeddingCache.write

    def killed(self, *args):
        if len(entries(folder)) == 4:
            raise SystemExit
        write(self, *args)

    monkeypatch.setattr(EmbeddingCache, 'write', killed)
    with pytest.raises(SystemExit):
        Build(folder).use(dataset(data))
    monkeypatch.undo()
    assert Build(folder).use(dataset(data)) == N - 4
    assert len(entries(folder)) == N


@pytest.mark.bad_input(91)
def test_damaged_entries_are_computed_again_alone(data, folder):
    Build(folder).use(dataset(data))
    cut, flipped, copied, gone, *_ = entries(folder)
    content = cut.read_bytes()
    cut.write_bytes(content[:-100])
    copied.write_bytes(flipped.read_bytes())
    flipped.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    gone.unlink()
    assert Build(folder).use(dataset(data)) == 4
    assert Build(folder).use(dataset(data)) == 0


@pytest.mark.bad_input(91)
def test_an_entry_that_is_damaged_later_ends_the_run_by_name(data, folder):
    Build(folder).use(cached := dataset(data, turning=()))
    for path in entries(folder):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r'Image .*train_1.png: The embedding .* is damaged'):
        cached[EpochIndex(0, 0, 0)]


def test_several_loaders_and_wrapped_data_sets(data, folder):
    train, val = dataset(data), dataset(data, split='val', turning=())
    both = ConcatDataset([dataset(data), dataset(data, split='val')])
    build = Build(folder)
    assert build.use(train, val) == N + 3
    assert build.use(both) == 3  # the mirrored ones of val
    assert all('image_embeddings' in both[EpochIndex(place, 0, 0)] for place in range(8))


def test_workers_decode_images_to_the_same_numbers(data, folder, tmp_path):
    Build(folder).use(dataset(data, FLIPS))
    Build(tmp_path / 'workers').use(dataset(data, FLIPS), num_workers=2)
    for path in entries(folder):
        other = tmp_path / 'workers' / path.relative_to(folder)
        assert other.read_bytes() == path.read_bytes()


def test_the_random_numbers_of_the_training_stay_what_they_are(data, folder):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    Build(folder).use(dataset(data), num_workers=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


# --------------------------------------------------------------------------- what cannot be cached


def test_an_encoder_that_trains_is_refused(data, folder):
    model = build_segmentor(IMG_SIZE, frozen=('prompt_encoder',))
    with pytest.raises(ConfigError, match=r'image_encoder in model.frozen.*prompt_encoder'):
        Build(folder, model).use(dataset(data))


def test_another_data_set_is_refused(folder):
    with pytest.raises(ConfigError, match='BoxPromptDataset in 0_dataloader, got TensorDataset'):
        Build(folder).use(torch.utils.data.TensorDataset(torch.zeros(3)))


def test_images_that_the_model_tiles_are_left_to_it(data, folder):
    pipeline = [dict(type='LoadSAMImage'), dict(type='PackSAMInputs')]
    tiled = dataset(data, pipeline=pipeline, test_mode=True, tiling=dict(tile_size=64, overlap=16))
    build = Build(folder)
    assert build.use(tiled) == 0
    assert build.lines == [
        'Embedding cache: not for 0_dataloader, whose images the model tiles itself.'
    ]
    assert tiled[0]['inputs'].dtype == torch.uint8


@pytest.mark.bad_input(42)
def test_a_wrong_annotated_size_is_found_while_it_is_built(root, folder):
    path = first_image(root)
    cv2.imwrite(str(path), cv2.imread(str(path))[:-1])
    with pytest.raises(DataError, match='train_1.png is .* its annotation'):
        Build(folder).use(dataset(root))


def test_an_image_larger_than_the_model_takes_is_named(data, folder):
    pipeline = [dict(type='LoadSAMImage'), dict(type='PackSAMInputs')]
    with pytest.raises(DataError, match=r'train_1.png: expected at most 64 px a side'):
        Build(folder).use(dataset(data, pipeline=pipeline, test_mode=True))


def test_an_embedding_beyond_float16_names_its_image(data, folder):
    model = build_segmentor(IMG_SIZE)
    with torch.no_grad():
        model.image_encoder.neck[3].bias.fill_(1e6)
    with pytest.raises(DataError, match='train_1.png has values up to 1e\\+06'):
        Build(folder, model).use(dataset(data))


# ------------------------------------------------------------------------------ the disk, the end


@pytest.mark.bad_input(84)
def test_what_certainly_does_not_fit_is_not_begun(data, folder, monkeypatch):
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=N * 8000))
    build = Build(folder)
    with pytest.raises(StorageError, match=f'{N} embeddings take .* has 0.1 MB free: make room'):
        build.use(dataset(data))
    assert not folder.exists()
    assert len(build.lines) == 1  # which says how much


@pytest.mark.bad_input(84)
def test_a_disk_that_fills_up_leaves_a_cache_to_go_on_with(data, folder, monkeypatch):
    write = Path.write_bytes

    def write_while_there_is_room(self, content):
        if len(entries(folder)) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    monkeypatch.setattr(Path, 'write_bytes', write_while_there_is_room)
    with pytest.raises(StorageError, match=f'No space left on device.* 3 of {N} embeddings are'):
        Build(folder).use(dataset(data))
    monkeypatch.undo()
    assert Build(folder).use(dataset(data)) == N - 3


def test_a_cache_that_may_only_be_read_is_used(data, folder, monkeypatch):
    Build(folder).use(dataset(data))

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ('write_bytes', 'write_text', 'mkdir'):
        monkeypatch.setattr(Path, name, refuse)
    assert Build(folder).use(dataset(data)) == 0


@pytest.mark.parametrize(('built', 'exit_code'), [(4, 75), (0, 128 + signal.SIGTERM)])
@pytest.mark.bad_input(81)
def test_a_signal_ends_it_soon_and_keeps_what_is_there(data, folder, monkeypatch, built, exit_code):
    """A run that has come on may be started again by the job; else it would never end."""
    if built == 0:
        monkeypatch.setattr(EmbeddingCache, 'write', lambda self, *args: None)
        monkeypatch.setattr(embedding_build._Build, '_encode', lambda self, *args: None)
    monkeypatch.setattr(
        stop_signal,
        'received',
        lambda: signal.SIGTERM if len(entries(folder)) >= built else None,
    )
    with pytest.raises(StoppedError, match=f'SIGTERM: .* {built} of {N} embeddings') as stopped:
        Build(folder).use(dataset(data))
    assert stopped.value.exit_code == exit_code
    assert len(entries(folder)) == built
    monkeypatch.undo()
    assert Build(folder).use(dataset(data)) == N - built


# -------------------------------------------------------------------------------- several processes


def test_two_ranks_share_the_work(data, folder, tmp_path):
    """And have the same bits as one; the number of images is odd."""

    def share(rank: int, store: Path) -> None:
        build = Build(folder, rank=rank, world_size=2)
        with encoded_images() as encoded:
            build.use(cached := dataset(data), dataset(data, split='val', turning=()))
        (tmp_path / f'encoded_{rank}').write_text(str(len(encoded)))
        assert cached[EpochIndex(4, 0, 0)]['image_embeddings'].shape == (256, 4, 4)

    fork_two_ranks(share, tmp_path)
    counts = [int((tmp_path / f'encoded_{rank}').read_text()) for rank in range(2)]
    assert counts == [3 * 2 + 1, 2 * 2 + 2]  # images in turn: 5 in two orientations, 3 in one
    alone = tmp_path / 'alone'
    Build(alone).use(dataset(data), dataset(data, split='val', turning=()))
    assert len(entries(folder)) == N + 3
    for path in entries(alone):
        assert (folder / path.relative_to(alone)).read_bytes() == path.read_bytes()


def test_all_ranks_end_with_the_error_of_one(root, folder, tmp_path):
    first_image(root).write_bytes(first_image(root).read_bytes()[:200])

    def share(rank: int, store: Path) -> None:
        with pytest.raises(DataError, match='train_1.png is damaged or cut off'):
            Build(folder, rank=rank, world_size=2).use(dataset(root, turning=()))

    fork_two_ranks(share, tmp_path)
    assert len(entries(folder)) == 1  # of the other rank, in the step that they share


def test_all_ranks_end_where_one_gets_a_signal(data, folder, tmp_path):
    def share(rank: int, store: Path) -> None:
        stop_signal.received = lambda: signal.SIGUSR1 if rank == 1 and entries(folder) else None
        with pytest.raises(StoppedError, match='SIGUSR1'):
            Build(folder, rank=rank, world_size=2).use(dataset(data))

    fork_two_ranks(share, tmp_path)
    assert 0 < len(entries(folder)) < N


def test_a_folder_that_ranks_do_not_share_is_refused(data, tmp_path):
    def share(rank: int, store: Path) -> None:
        embedding_build._SECONDS_TO_APPEAR = 0.1
        build = Build(tmp_path / f'disk_{rank}', rank=rank, world_size=2)
        with pytest.raises(StorageError, match=f'Rank {number} .* all machines of the run share'):
            build.use(dataset(data))

    number = 1  # before anything is computed
    fork_two_ranks(share, tmp_path)
    assert entries(tmp_path) == []
    Build(tmp_path / 'disk_1').use(dataset(data))
    number = 0  # each has some
    fork_two_ranks(share, tmp_path / 'disk_1')


def test_two_runs_may_build_at_the_same_time(tmp_path):
    """Each computes what it missed at its start; both have all of it."""
    data, folder = write_dataset(tmp_path / 'data'), tmp_path / 'embeddings'

    def build_alone(rank: int, store: Path) -> None:
        torch.distributed.barrier()
        assert Build(folder).use(dataset(data)) > 0

    fork_two_ranks(build_alone, tmp_path)
    assert Build(folder).use(dataset(data)) == 0
    assert len(entries(folder)) == N
