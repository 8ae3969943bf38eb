"""Looks at the data of a training before its first iteration, in about a second."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.transforms.loading import check_annotated_size
from mmsam.engine.agreement import raised_by_all

from .findings import Findings, Suspect, name_objects
from .image_header import read_header, reading_of
from .object_checks import check_objects, input_size
from .split_facts import SplitFacts, class_names

_IMAGES, _HEADERS = 500, 200
"""Images of a data set whose objects, and whose files, are looked at, evenly spread over it."""


def check_data_quickly(runner: Runner) -> None:
    """Log the numbers of both splits and what is suspicious; all ranks end together.

    No image is decoded: objects are looked at as far as they have been read already, and of the
    image files only the headers, of a sample of them. ``tools/check_data.py`` looks at all.

    Args:
        runner: before ``train``; its loops are built, which reads the annotations.

    Raises:
        DataError: an image file that cannot be opened, or is not of the size of its annotation.
    """
    with raised_by_all():
        if is_main_process():
            _check('train', runner.train_loop.dataloader.dataset, runner.logger)
            if runner.val_loop is not None:
                _check('val', runner.val_loop.dataloader.dataset, runner.logger)


def _check(name: str, data: Any, logger: MMLogger) -> None:
    for dataset in _box_prompt_datasets(data):
        facts, findings = SplitFacts(), Findings()
        for index in _spread(len(dataset), _IMAGES):
            info = _known_of(dataset, index)
            if 'rles' in info:
                facts.add(info, class_names(dataset))
                suspicions = check_objects(info, input_size(dataset), dataset.tiling)
                for what, objects, detail in suspicions:
                    findings.warn(what, name_objects(info, objects, detail))
        reading = reading_of(dataset)
        for index in _spread(len(dataset), _HEADERS):
            info = _known_of(dataset, index)
            header = read_header(info['img_path'], reading)
            if 'rles' in info and not reading.frame:
                check_annotated_size(info, header.size)
            if header.is_rotated:
                findings.warn(
                    'images whose EXIF orientation is ignored', Suspect(info['img_path'], info)
                )
        has_tile_samples = dataset.tiling is not None and not dataset.test_mode
        line = facts.line(len(dataset), 'tiles' if has_tile_samples else 'images')
        logger.info(f'Data of {name}: {line}')
        for line in findings.warning_lines():
            logger.warning(f'Data of {name}: {line}')


def _spread(number: int, most: int) -> list[int]:
    """At most ``most`` of the first ``number`` indices, evenly spread, always the same."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(int)).tolist()


def _known_of(dataset: BoxPromptDataset, index: int) -> dict[str, Any]:
    """What was read of an image when the data set was built, perhaps without its objects."""
    return BaseDataset.get_data_info(dataset, index)


def _box_prompt_datasets(dataset: Any) -> Iterator[BoxPromptDataset]:
    """Those that a data set, or one that it wraps, consists of."""
    if isinstance(dataset, BoxPromptDataset):
        yield dataset
    for part in getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)]):
        if part is not None:
            yield from _box_prompt_datasets(part)
