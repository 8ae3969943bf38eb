"""Numbers of one split, and the tables that show those of all splits side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prettytable import PrettyTable

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.readers.rle import boxes_of_rles
from mmsam.evaluation.metrics.prompted_mask_metric import MEDIUM_AREA, SMALL_AREA
from mmsam.geometry import Size
from mmsam.structures.rle import mask_area


@dataclass
class SplitFacts:
    """Collected image by image.

    Args:
        sizes: images of each size (H, W).
        kinds: images of each kind of file, such as 'PNG RGBA'.
        objects_of_image: of each image.
        areas: of each object, px.
        labels: objects of each class, by its name (and its id in the annotation).
        at_the_edge: objects that reach the edge of their image.
        touching: objects that touch another one.
        images_with_touching: images that have some.
    """

    sizes: Counter[Size] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    objects_of_image: list[int] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    at_the_edge: int = 0
    touching: int = 0
    images_with_touching: int = 0

    def add(self, info: dict[str, Any], class_names: Sequence[str]) -> None:
        """Count one image with its objects, as ``BoxPromptDataset`` lists it."""
        size = info['height'], info['width']
        self.sizes[size] += 1
        self.objects_of_image.append(len(info['rles']))
        self.labels.update(class_names[label] for label in info['labels'])
        if info['rles']:
            self.areas += [mask_area(rle) for rle in info['rles']]
            x1, y1, x2, y2 = boxes_of_rles(info['rles']).T
            edges = (x1 == 0) | (y1 == 0) | (x2 == size[1]) | (y2 == size[0])
            self.at_the_edge += int(edges.sum())

    def add_touching(self, objects: int) -> None:
        """Count the objects of one image that touch another."""
        self.touching += objects
        self.images_with_touching += objects > 0

    def rows(self) -> dict[str, str]:
        """What is told of a split."""
        small = sum(area < SMALL_AREA for area in self.areas)
        large = sum(area >= MEDIUM_AREA for area in self.areas)
        return {
            'images': str(len(self.objects_of_image)),
            'sizes (height x width)': _sizes(self.sizes),
            'files': '\n'.join(f'{count} {kind}' for kind, count in self.kinds.most_common()),
            'objects': str(len(self.areas)),
            'objects an image': _spread(self.objects_of_image),
            'area of an object, px': _spread(self.areas),
            'small (< 32x32 px)': str(small),
            'medium': str(len(self.areas) - small - large),
            'large (>= 96x96 px)': str(large),
            'at the edge of their image': str(self.at_the_edge),
            'touching another': f'{self.touching} in {self.images_with_touching} images',
            **{f'class {name}': str(count) for name, count in sorted(self.labels.items())},
        }

    def line(self, number: int, samples: str) -> str:
        """What is told of a split in one sentence; ``samples`` are 'images' or 'tiles'."""
        of_images = (
            ''
            if len(self.objects_of_image) == number
            else (f' (of {len(self.objects_of_image)} {samples} that were looked at)')
        )
        return (
            f'{number} {samples}; {len(self.areas)} objects{of_images}, '
            f'{_spread(self.objects_of_image)} in each; areas {_spread(self.areas)} px.'
        )

    def bins(self) -> Counter[int]:
        """Objects whose area is at least 2**k px and less than twice that, by k."""
        return Counter(int(area).bit_length() - 1 for area in self.areas)


def class_names(dataset: BoxPromptDataset) -> list[str]:
    """The classes by label, with the ids that the annotation gives them."""
    names = dataset.metainfo['classes']
    ids = dataset.metainfo.get('category_ids')
    return (
        list(names) if ids is None else [f'{n} (id {i})' for n, i in zip(names, ids, strict=True)]
    )


def facts_table(splits: Mapping[str, SplitFacts]) -> PrettyTable:
    """The numbers, a column for each split."""
    rows = {name: facts.rows() for name, facts in splits.items()}
    labels = dict.fromkeys(label for column in rows.values() for label in column)
    table = PrettyTable(['', *rows], align='r', valign='t')
    table.align[''] = 'l'
    for label in labels:
        missing = '0' if label.startswith('class ') else '-'
        table.add_row([label, *(column.get(label, missing) for column in rows.values())])
    return table


def histogram_table(splits: Mapping[str, SplitFacts]) -> PrettyTable:
    """Objects by area, a column for each split."""
    bins = {name: facts.bins() for name, facts in splits.items()}
    powers = [power for column in bins.values() for power in column]
    table = PrettyTable(['area of an object, px', *bins], align='r')
    for power in range(min(powers, default=0), max(powers, default=-1) + 1):
        span = f'{2**power} to {2 ** (power + 1) - 1}' if power else '1'
        table.add_row([span, *(column[power] for column in bins.values())])
    return table


def _spread(values: Sequence[int]) -> str:
    if not values:
        return '-'
    return f'{min(values)} to {max(values)}, median {np.median(values):g}'


def _sizes(sizes: Counter[Size]) -> str:
    texts = [f'{count} of {h}x{w}' for (h, w), count in sizes.most_common(3)]
    if len(sizes) > 3:
        smallest, largest = (
            choose(sizes, key=lambda size: size[0] * size[1]) for choose in (min, max)
        )
        texts.append(
            f'{len(sizes)} sizes, {"x".join(map(str, smallest))} to {"x".join(map(str, largest))}'
        )
    return '\n'.join(texts)
