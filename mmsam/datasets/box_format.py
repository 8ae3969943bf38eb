"""Finds annotation boxes that are written in another format than they are read in."""

from collections.abc import Callable, Sequence

import numpy as np

from mmsam.errors import DataError

from .readers import AnnotatedImage
from .readers.rle import boxes_of_rles

_FITS = 0.5
"""IoU of a box with its mask's box from which the box is one of that mask."""

_HARDLY, _NEARLY = 0.5, 0.95
"""Share of the boxes that fit below which a format is doubted, and above which it is believed."""

_READ = '(x, y, width, height) in pixels'
_CORNERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    '(x, y, width, height)': lambda four: np.hstack([four[:, :2], four[:, :2] + four[:, 2:]]),
    '(x1, y1, x2, y2)': lambda four: four,
    '(centre x, centre y, width, height)': lambda four: np.hstack(
        [four[:, :2] - four[:, 2:] / 2, four[:, :2] + four[:, 2:] / 2]
    ),
}
"""Corners (N, 4) of what four numbers (N, 4) may mean."""


def check_box_format(images: Sequence[AnnotatedImage]) -> None:
    """Try formats that are often confused with COCO's, (x, y, width, height) in pixels.

    Boxes that leave their image, or are far too small, need not be the wrong format; that they
    match their masks in another one, and do not as they are read, tells.

    Args:
        images: of a reader; those whose objects or boxes are unknown are passed over.

    Raises:
        DataError: fewer than half of all boxes fit their masks, but nearly all would in another
            format.
    """
    numbers, truths, sizes = [], [], []
    for image in images:
        if image.objects is None or not image.objects.boxes:
            continue
        known = [box is not None for box in image.objects.boxes]
        boxes = np.array([box for box in image.objects.boxes if box is not None]).reshape(-1, 4)
        numbers.append(np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]))  # as in the file
        truths.append(boxes_of_rles(image.objects.rles)[known])
        height, width = image.objects.size
        sizes.append(np.tile([width, height, width, height], (len(boxes), 1)))
    if not numbers or not any(map(len, numbers)):
        return
    number, truth = np.concatenate(numbers), np.concatenate(truths)
    scales = {'pixels': 1, 'shares of the image': np.concatenate(sizes)}
    with np.errstate(invalid='ignore', over='ignore'):  # of boxes that are refused later
        fit = {
            f'{name} in {unit}': np.mean(ious_of_pairs(corners(number * scale), truth) >= _FITS)
            for name, corners in _CORNERS.items()
            for unit, scale in scales.items()
        }
    best = max(fit, key=lambda name: fit[name])
    if fit[_READ] < _HARDLY and fit[best] > _NEARLY:
        raise DataError(
            f'The boxes in {images[0].ann_path} look like {best}: {fit[best]:.0%} of '
            f'{len(number)} fit their masks so, {fit[_READ]:.0%} as {_READ}, which is expected; '
            "convert them, or set boxes_from='mask'."
        )


def ious_of_pairs(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (N,) of boxes (N, 4) xyxy, pair by pair; 0 or NaN for boxes that have no area."""
    near, far = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    overlap = (far - near).clip(0).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2]).clip(0).prod(axis=1) for box in (boxes, others)]
    return overlap / (areas[0] + areas[1] - overlap)
