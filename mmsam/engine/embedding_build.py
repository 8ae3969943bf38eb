"""Has the images of data loaders encoded, as far as they are not in an embedding cache yet."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from mmengine.dist import all_gather, all_gather_object, is_main_process
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmsam import stop_signal
from mmsam.embedding_cache import (
    EmbeddingCache,
    ImageEmbeddings,
    ImageView,
    digest_of_file,
    entry_key,
)
from mmsam.errors import ConfigError, MMSAMError, StoppedError, StorageError
from mmsam.geometry import Size
from mmsam.structures import SAMDataSample

from .agreement import raised_by_all
from .loader_workers import WORKER_TIMEOUT, make_workers_deaf, worker_failures
from .model_parts import unwrapped

_IMAGES_AT_ONCE = 4
"""That a GPU encodes together; a CPU takes one after the other just as fast, and then an embedding
does not depend, in its last bits, on the images beside it."""

_FILES_AT_ONCE = 256
"""That are looked at between two signs of progress."""

_SECONDS_BETWEEN_LINES = 10.0

_SECONDS_TO_APPEAR = 60.0
"""In which a file that one machine has written is seen by another one; NFS takes up to so long."""

_In = TypeVar('_In')
_Out = TypeVar('_Out')


class _Wanted(NamedTuple):
    """An embedding that samples need, and one of these samples."""

    key: str
    view: ImageView
    dataset: Any
    place: int


def use_embeddings(runner: Runner, folder: Path, loaders: Mapping[str, DataLoader]) -> None:
    """Let the data sets of loaders give embeddings in place of images; compute those missing.

    Every rank has to call it; they share the work. What is there already is checked as a whole, and
    computed again where it is damaged. A loader whose images the model cuts into tiles stays as it
    is.

    Args:
        runner: with a ``SAMSegmentor`` whose weights are loaded.
        folder: of the caches of all encoders.
        loaders: by their key in the config; no batch of them may be under way.

    Raises:
        ConfigError: the encoder trains, or a data set or its pipeline gives images that cannot be
            encoded ahead.
        DataError: an image cannot be read or encoded.
        StorageError: the disk is or becomes full, or the ranks do not see the same folder; what is
            written stays usable.
        StoppedError: a signal asked the run to end meanwhile; the same holds.
    """
    model = unwrapped(runner.model)
    if 'image_encoder' not in getattr(model, 'frozen', ()):
        raise ConfigError(
            'embedding_cache: expected a SAMSegmentor with image_encoder in model.frozen, got '
            f'{type(model).__name__} with frozen={getattr(model, "frozen", None)}; '
            'embedding_cache=None trains without a cache.'
        )
    cached = {name: loader for name, loader in loaders.items() if _is_cached(runner, name, loader)}
    if not cached:
        return
    datasets = [dataset for loader in cached.values() for dataset in _parts(loader.dataset)]
    cache = EmbeddingCache(folder, model.embedding_facts())
    work = _SharedWork(runner)
    views = [list(dataset.image_views()) for dataset in datasets]
    paths = sorted({view.path for of_set in views for of_sample in of_set for view in of_sample})
    digests = dict(zip(paths, work.map(digest_of_file, paths), strict=True))
    wanted: dict[str, _Wanted] = {}
    for dataset, of_set in zip(datasets, views, strict=True):
        for place, of_sample in enumerate(of_set):
            for view in of_sample:
                key = entry_key(digests[view.path], view)
                wanted.setdefault(key, _Wanted(key, view, dataset, place))
    good = work.map(cache.is_good, list(wanted))
    missing = [one for one, is_good in zip(wanted.values(), good, strict=True) if not is_good]
    _announce(runner, cache, len(wanted), len(missing))
    if missing:
        with raised_by_all():
            if is_main_process():
                cache.write_manifest()
        _check_all_see(runner, [cache.manifest])
        workers = max(loader.num_workers for loader in cached.values())
        _Build(runner, model, cache, missing, workers).run()
    _check_all_see(runner, [cache.path_of(key) for key in wanted])
    for dataset in datasets:
        dataset.use_embeddings(ImageEmbeddings(cache, digests))
    for loader in cached.values():
        loader._iterator = None  # persistent workers hold the data set as it was


def _is_cached(runner: Runner, name: str, loader: DataLoader) -> bool:
    parts = list(_parts(loader.dataset))
    for part in parts:
        if not hasattr(part, 'use_embeddings'):
            raise ConfigError(
                f'embedding_cache: expected BoxPromptDataset in {name}, got '
                f'{type(part).__name__}; embedding_cache=None trains without a cache.'
            )
    if any(part.predicts_tiles for part in parts):
        runner.logger.info(f'Embedding cache: not for {name}, whose images the model tiles itself.')
        return False
    return True


def _parts(dataset: Any) -> Iterator[Any]:
    """The data sets inside mmengine's wrappers."""
    inner = [*getattr(dataset, 'datasets', ()), *filter(None, [getattr(dataset, 'dataset', None)])]
    if not inner:
        yield dataset
    for one in inner:
        yield from _parts(one)


class _SharedWork:
    """Looks at files: each rank at its share, with several threads."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._batches = 0

    def map(self, function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
        """``function`` of each item, on every rank.

        Raises:
            MMSAMError: one that ``function`` raised on any rank.
        """
        rank, world_size = self._runner.rank, self._runner.world_size
        own: list[_Out] = []
        with raised_by_all(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            share = iter(items[rank::world_size])
            while part := list(islice(share, _FILES_AT_ONCE)):
                own += pool.map(function, part)
                self._batches += 1
                self._runner.call_hook('after_embeddings', batches=self._batches)
        shares = all_gather_object(own)
        return [shares[place % world_size][place // world_size] for place in range(len(items))]


def _announce(runner: Runner, cache: EmbeddingCache, number: int, missing: int) -> None:
    """Say what will be written, before it is.

    Raises:
        StorageError: it certainly does not fit.
    """
    if not missing:
        runner.logger.info(
            f'Embedding cache: all {number} embeddings are in {cache.folder} '
            f'({_size(number * cache.entry_bytes)}).'
        )
        return
    needed = missing * cache.entry_bytes
    with raised_by_all():
        if is_main_process():
            free = _free_space(cache.folder)
            runner.logger.info(
                f'Embedding cache: {missing} of {number} embeddings are to be computed and take '
                f'{_size(needed)} in {cache.folder}, where {_size(free)} are free.'
            )
            if needed > free:
                raise StorageError(
                    f'{missing} embeddings take {_size(needed)}, {cache.folder} has {_size(free)} '
                    'free: make room, choose another embedding_cache.folder, or set '
                    'embedding_cache=None.'
                )


def _free_space(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _size(number: float) -> str:
    return f'{number / 1e9:.1f} GB' if number >= 1e9 else f'{number / 1e6:.1f} MB'


def _check_all_see(runner: Runner, paths: Sequence[Path]) -> None:
    """Wait until all ranks see the files, of which other machines may be told a little late."""
    if runner.world_size == 1:
        return
    with raised_by_all():
        end = time.monotonic() + _SECONDS_TO_APPEAR
        unseen = [path for path in paths if not path.exists()]
        while unseen and time.monotonic() < end:
            time.sleep(0.1)
            unseen = [path for path in unseen if not path.exists()]
        if unseen:
            raise StorageError(
                f'Rank {runner.rank} does not see {len(unseen)} of {len(paths)} files that other '
                f'ranks have written, such as {unseen[0]}: embedding_cache.folder must be on a '
                'disk that all machines of the run share.'
            )


class _UprightImages(Dataset):
    """The images of jobs: each is decoded once for all embeddings of a sample."""

    def __init__(self, jobs: Sequence[Sequence[_Wanted]]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, place: int) -> tuple[Tensor, Size]:
        first = self._jobs[place][0]
        return first.dataset.upright_image(first.place)


class _Build:
    """Computes missing embeddings; the ranks keep step, so that none waits long for another."""

    def __init__(
        self,
        runner: Runner,
        model: Any,
        cache: EmbeddingCache,
        missing: Sequence[_Wanted],
        num_workers: int,
    ) -> None:
        self._runner = runner
        self._model = model
        self._cache = cache
        self._total = len(missing)
        jobs: dict[tuple[int, int], list[_Wanted]] = {}
        for one in missing:
            jobs.setdefault((id(one.dataset), one.place), []).append(one)
        self._jobs = list(jobs.values())[runner.rank :: runner.world_size]
        self._images_at_once = 1 if self._device.type == 'cpu' else _IMAGES_AT_ONCE
        self._num_workers = min(num_workers, len(self._jobs))
        self._done = 0

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    def run(self) -> None:
        """Compute and write all of them; see ``use_embeddings``."""
        self._model.image_encoder.eval()  # as it will be, being frozen
        own = sum(map(len, self._jobs))
        steps = max(all_gather_object(-(-own // self._images_at_once)))
        batches = self._batches()
        start = spoken = time.monotonic()
        for step in range(1, steps + 1):
            error = None
            try:
                with worker_failures():
                    if batch := next(batches, None):
                        self._encode(*batch)
            except MMSAMError as raised:
                error = raised
            done = self._agree(error)
            self._runner.call_hook('after_embeddings', batches=step)
            now = time.monotonic()
            if now - spoken >= _SECONDS_BETWEEN_LINES or step == steps:
                spoken = now
                left = (now - start) * (self._total - done) / max(1, done)
                self._runner.logger.info(
                    f'Embedding cache: {done} of {self._total} are computed, {left:.0f} s left.'
                )

    def _batches(self) -> Iterator[tuple[list[_Wanted], list[Size], list[Tensor]]]:
        """The embeddings to compute next, sizes of their files, and images (3, h, w) uint8."""
        loader: DataLoader = DataLoader(
            _UprightImages(self._jobs),
            batch_size=None,
            num_workers=self._num_workers,
            timeout=WORKER_TIMEOUT if self._num_workers else 0,
            generator=torch.Generator(),  # the numbers of the training stay what they are
        )
        if self._num_workers and stop_signal.is_listening():
            make_workers_deaf(loader)
        wanted: list[_Wanted] = []
        sizes: list[Size] = []
        images: list[Tensor] = []
        for job, (image, size) in zip(self._jobs, loader, strict=True):
            for one in job:
                wanted.append(one)
                sizes.append(size)
                images.append(one.view.orientation.applied_to(image))
                if len(images) == self._images_at_once:
                    yield wanted, sizes, images
                    wanted, sizes, images = [], [], []
        if images:
            yield wanted, sizes, images

    @torch.no_grad()
    def _encode(self, wanted: list[_Wanted], sizes: list[Size], images: list[Tensor]) -> None:
        samples = [SAMDataSample(metainfo={'img_path': one.view.path}) for one in wanted]
        data = self._model.data_preprocessor({'inputs': images, 'data_samples': samples})
        embeddings = self._model.encode_images(data['inputs']).cpu()
        for one, size, embedding in zip(wanted, sizes, embeddings, strict=True):
            self._cache.write(one.key, embedding, size, one.view.path)
            self._done += 1

    def _agree(self, error: MMSAMError | None) -> int:
        """How many embeddings all ranks have computed; ends all of them where one has to end."""
        state = torch.tensor([self._done, error is not None, stop_signal.received() or 0])
        done, errors, signals = torch.stack(all_gather(state)).T.tolist()
        kept = f'{sum(done)} of {self._total} embeddings are computed and stay in use'
        if any(errors):
            with raised_by_all():
                if isinstance(error, StorageError):
                    raise StorageError(f'{error} {kept}; make room and start again.')
                if error is not None:
                    raise error
        if any(signals):
            number = signal.Signals(max(signals))
            stop_signal.forget()
            stopped = StoppedError(f'{number.name}: stopped before anything else; {kept}.')
            if not any(done):  # a job that is started again for 75 must come on each time
                stopped.exit_code = 128 + number
            raise stopped
        return sum(done)
