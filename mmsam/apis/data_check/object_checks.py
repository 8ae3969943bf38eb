"""What is suspicious in the objects of one image, told from their masks and boxes alone."""

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.box_format import ious_of_pairs
from mmsam.datasets.readers.rle import boxes_of_rles
from mmsam.datasets.tiling import Tiling
from mmsam.datasets.transforms import RandomScaleCrop, ResizeLongestSide
from mmsam.geometry import resize_longest_side_size
from mmsam.structures.rle import mask_area

_FITS = 0.5
"""IoU of a box with its mask's box, below which it is doubted."""
_WHOLE = 0.95
"""Share of the image from which a mask may be one of the background."""
_CELL = 16
"""Area in input px of a cell of the decoder's output."""
_MANY_LEVELS, _SCATTERED = 8, 0.1
"""Objects from which on they may be gray levels, and the share of their boxes that these fill."""


class Suspicion(NamedTuple):
    """What is suspicious, of which objects (indices), and a number that shows it."""

    what: str
    objects: tuple[int, ...]
    detail: str = ''


def check_objects(
    info: dict[str, Any], image_size: int | None, tiling: Tiling | None
) -> Iterator[Suspicion]:
    """Look at the objects of one image.

    Args:
        info: the image with its objects, as ``BoxPromptDataset`` lists them.
        image_size: side of the padded square, px; None if unknown.
        tiling: of the data set; ``info`` may be of a tile or of the whole image.
    """
    rles = info['rles']
    if not rles:
        return
    height, width = info['height'], info['width']
    areas = np.array([mask_area(rle) for rle in rles])
    tight = boxes_of_rles(rles)
    for index in np.flatnonzero(areas == 1):
        yield Suspicion('objects of 1 px', (int(index),))
    if image_size is not None:
        size = (height, width) if tiling is None else tiling.size_in((height, width))
        input_areas = areas * (prod(resize_longest_side_size(size, image_size)) / prod(size))
        what = f'objects smaller than 4x4 px in an input of {image_size} px'
        for index in np.flatnonzero((input_areas < _CELL) & (areas > 1)):
            yield Suspicion(what, (int(index),), f'{input_areas[index]:.1f} px')
    for index in np.flatnonzero(areas >= _WHOLE * height * width):
        yield Suspicion('objects that cover their image', (int(index),))
    yield from _check_boxes(info['gt_boxes'], tight)
    first_with: dict[bytes, int] = {}
    for number, rle in enumerate(rles):
        first = first_with.setdefault(rle['counts'], number)
        if first != number:
            yield Suspicion('objects with the same mask as another', (first, number))
    sides = tight[:, 2:] - tight[:, :2]
    scattered = np.flatnonzero(areas < _SCATTERED * sides.prod(axis=1))
    if len(rles) >= _MANY_LEVELS and len(scattered) > len(rles) / 2:
        what = 'images whose objects look like the gray levels of a smoothed or JPEG mask'
        yield Suspicion(what, tuple(scattered.tolist()), f'{len(rles)} values')


def _check_boxes(boxes: np.ndarray, tight: np.ndarray) -> Iterator[Suspicion]:
    with np.errstate(invalid='ignore', divide='ignore', over='ignore'):
        ious = ious_of_pairs(boxes.astype(np.float64), tight)
    for index in np.flatnonzero(ious < _FITS):  # not those without an area, which are errors
        yield Suspicion(
            'boxes that do not fit their masks', (int(index),), f'IoU {ious[index]:.2f}'
        )


def input_size(dataset: BoxPromptDataset) -> int | None:
    """The ``image_size`` of the data set's pipeline; None where that resizes nothing."""
    for step in dataset.pipeline.transforms:
        if isinstance(step, ResizeLongestSide):
            return step.image_size
        if isinstance(step, RandomScaleCrop):
            return step.full_size.image_size
    return None
