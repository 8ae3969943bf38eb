"""What the training and the validation set of a run are to each other and to its batches."""

import os
from collections.abc import Iterator, Sized
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmsam.datasets import BoxPromptDataset, SeededInfiniteSampler
from mmsam.engine.agreement import raised_by_all
from mmsam.errors import ConfigError

ENDLESS_SAMPLERS = (InfiniteSampler, SeededInfiniteSampler)
"""They go round a data set; a loop that ends with its data does not end with them."""


def check_splits(runner: Runner) -> None:
    """Check that both splits give batches, and warn of images in both; all ranks end together.

    Args:
        runner: before ``train``; its loops are built, which reads the annotations.

    Raises:
        ConfigError: a split is empty, or all of it is left out as less than a batch.
    """
    train = runner.train_loop.dataloader
    val = runner.val_loop.dataloader if runner.val_loop is not None else None
    with raised_by_all():
        _check_batches(runner, 'train_dataloader', train)
        if val is not None:
            _check_batches(runner, 'val_dataloader', val)
            if is_main_process():
                _check_overlap(runner, train, val)


def _check_batches(runner: Runner, name: str, loader: DataLoader) -> None:
    if not isinstance(loader.dataset, Sized):
        return
    images = len(loader.dataset)
    if images == 0:
        raise ConfigError(
            f'{name}: expected at least one image, got 0 from {type(loader.dataset).__name__}.'
        )
    sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    each = f'{runner.world_size} x {loader.batch_size} (processes x batch_size)'
    if not isinstance(sampler, ENDLESS_SAMPLERS):
        if len(loader) == 0:
            raise ConfigError(
                f'{name}: {images} images are less than a batch of {each}, and drop_last leaves '
                'them out: lower batch_size, or set drop_last=False.'
            )
    elif loader.batch_size and images < runner.world_size * loader.batch_size:
        runner.logger.warning(
            f'{name}: {images} images are less than an iteration takes, {each}: some are in it '
            'more than once.'
        )


def _check_overlap(runner: Runner, train: DataLoader, val: DataLoader) -> None:
    validated = _image_files(val.dataset)
    shared = sorted(_image_files(train.dataset) & validated)
    if shared:
        runner.logger.warning(
            f'{len(shared)} of {len(validated)} images of the validation are trained on, such as '
            f'{shared[0]}: its scores are too good.'
        )


def _image_files(dataset: Any) -> set[str]:
    """The image files of a data set, symbolic links of their folders resolved."""
    folders: dict[str, str] = {}
    files = set()
    for path in _image_paths(dataset):
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        files.add(os.path.join(folders[folder], name))
    return files


def _image_paths(dataset: Any) -> Iterator[str]:
    """Paths of the images, as far as the data set, or those that it wraps, tell them."""
    if isinstance(dataset, BoxPromptDataset):
        yield from dataset.image_paths()
    elif hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _image_paths(part)
    elif hasattr(dataset, 'dataset'):
        yield from _image_paths(dataset.dataset)
    elif hasattr(dataset, 'get_data_info'):
        for index in range(len(dataset)):
            path = dataset.get_data_info(index).get('img_path')
            if isinstance(path, str):
                yield path
