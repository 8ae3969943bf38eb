"""Reads all data of a config as a training would, and does not stop at the first error."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsam.apis.config_check import datasets_of
from mmsam.apis.run_config import check_paths
from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.readers.problems import collect_problems, one_record
from mmsam.datasets.tiling import Tiling, build_tiling
from mmsam.datasets.transforms.loading import check_annotated_size
from mmsam.errors import ConfigError
from mmsam.registry import DATASETS
from mmsam.rgb_image import read_rgb

from .findings import Findings, Suspect, name_objects
from .image_header import read_header, reading_of
from .neighbours import find_overlaps, find_touching
from .object_checks import check_objects, input_size
from .split_facts import SplitFacts, class_names

_SMALL_SIDE = 16
"""Sides below this, in px, are less than a patch of SAM's image encoder."""
_SAMPLES = 3
"""Images of each split that are kept for pictures."""


@dataclass
class CheckedSplit:
    """What is known of the data of one data loader.

    Args:
        facts: numbers.
        findings: errors and warnings.
        files: SHA-256 of each image file to the path of the first that has it.
        samples: the first images with their objects, as ``BoxPromptDataset`` lists them.
    """

    facts: SplitFacts = field(default_factory=SplitFacts)
    findings: Findings = field(default_factory=Findings)
    files: dict[str, str] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)


def check_data(config: Config, phases: Sequence[str]) -> dict[str, CheckedSplit]:
    """Read and check all images and objects of the data loaders of ``phases``.

    Args:
        config: as it would run; it has these loaders.
        phases: 'train', 'val' and 'test', as far as it has them.

    Returns:
        What was found, by phase; by 'val, test' where both have the same data.
    """
    phases_of_data: list[tuple[Any, list[str]]] = []
    for phase in phases:
        dataset = config[f'{phase}_dataloader']['dataset']
        same = [others for data, others in phases_of_data if data == dataset]
        if same:
            same[0].append(phase)
        else:
            phases_of_data.append((dataset, [phase]))
    splits = {
        ', '.join(names): _check_split(config, names[0], dataset)
        for dataset, names in phases_of_data
    }
    _check_shared_images(splits)
    return splits


def _check_split(config: Config, phase: str, dataset_config: Any) -> CheckedSplit:
    loader = f'{phase}_dataloader'
    split = CheckedSplit()
    with collect_problems() as problems:
        with one_record():
            check_paths(config, (loader,))
            for leaf in _leaves(dataset_config, loader):
                with one_record():
                    tiling = None if leaf.get('tiling') is None else build_tiling(leaf['tiling'])
                    if tiling is not None:  # images are checked whole; indices would be of tiles
                        leaf = {**leaf, 'tiling': None, 'indices': None}
                    _check_dataset(DATASETS.build(leaf), tiling, split)
    split.findings.add(problems)
    for name, count in split.facts.labels.items():
        if count == 0:
            split.findings.warn('classes without an object', Suspect(name))
    return split


def _leaves(config: Any, loader: str) -> list[dict]:
    """The configs of the data sets that a loader's data set consists of."""
    leaves = [part for part in datasets_of(config) if not {'dataset', 'datasets'} & part.keys()]
    for leaf in leaves:
        if DATASETS.get(leaf['type']) is not BoxPromptDataset:
            raise ConfigError(
                f"{loader}: expected data sets of type 'BoxPromptDataset', the only ones that are "
                f"checked, got '{leaf['type']}'."
            )
    return leaves


def _check_dataset(dataset: BoxPromptDataset, tiling: Tiling | None, split: CheckedSplit) -> None:
    names = class_names(dataset)
    split.facts.labels.update(dict.fromkeys(names, 0))
    reading = reading_of(dataset)
    for index in range(len(dataset)):
        with one_record():
            info = {**dataset.get_data_info(index), 'image_reading': reading}
            if len(split.samples) < _SAMPLES:
                split.samples.append(info)
            split.facts.add(info, names)
            for what, objects, detail in check_objects(info, input_size(dataset), tiling):
                split.findings.warn(what, name_objects(info, objects, detail))
            _check_neighbours(info, split)
            _check_image(info, split)


def _check_neighbours(info: dict[str, Any], split: CheckedSplit) -> None:
    for pair, pixels in find_overlaps(info['rles']).items():
        split.findings.warn(
            'pairs of objects that share pixels', name_objects(info, pair, f'{pixels} px')
        )
    split.facts.add_touching(len(find_touching(info['rles'])))


def _check_image(info: dict[str, Any], split: CheckedSplit) -> None:
    path, reading, findings = info['img_path'], info['image_reading'], split.findings
    header = read_header(path, reading)
    split.facts.kinds[header.kind] += 1
    if header.is_rotated:
        findings.warn('images whose EXIF orientation is ignored', Suspect(path, info))
    image = read_rgb(path, reading)
    pixels = image.pixels
    check_annotated_size(info, (pixels.shape[0], pixels.shape[1]))
    for change in image.changes:
        findings.warn(f'images of which {change}', Suspect(path, info))
    if (pixels == pixels[0, 0]).all():
        findings.warn('images of one colour', Suspect(path, info))
    if min(pixels.shape[:2]) < _SMALL_SIDE:
        size = f'{pixels.shape[0]}x{pixels.shape[1]}'
        findings.warn(
            f'images with a side below {_SMALL_SIDE} px', Suspect(f'{path} ({size})', info)
        )
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    first = split.files.setdefault(digest, path)
    if first != path:
        findings.warn(
            'images that are the same file as another', Suspect(f'{path} and {first}', info)
        )


def _check_shared_images(splits: dict[str, CheckedSplit]) -> None:
    names = list(splits)
    for number, name in enumerate(names):
        for earlier in names[:number]:
            others = splits[earlier].files
            for digest, path in splits[name].files.items():
                if digest in others:
                    splits[name].findings.warn(
                        f'images that are in {earlier}, too',
                        Suspect(f'{path} and {others[digest]}'),
                    )
