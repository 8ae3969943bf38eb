"""Boxes of a detector, from the JSON file of results that COCO's tools write and read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsam.errors import DataError
from mmsam.geometry import Size

from .readers import first_few
from .readers.json_file import is_number, read_json
from .readers.problems import remark


@dataclass
class DetectedBoxes:
    """D detections of one image, in the order of the file.

    Args:
        boxes: (D, 4) float32 xyxy, original px, inside the image.
        scores: (D,) float32, the detector's.
        labels: (D,) int64, index into the data set's classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def read_detected_boxes(
    path: Path,
    sizes: Mapping[int | str, Size | None],
    labels: Mapping[int | str, int],
) -> dict[int | str, DetectedBoxes]:
    """The detections of every image that has a size, those without any included.

    The file is a list of objects with ``image_id``, ``category_id``, ``bbox`` (x, y, width, height
    in original px) and ``score``; what else they have is passed over. Boxes are clipped to their
    image.

    Args:
        path: the file.
        sizes: (H, W) by image id; None for an image whose detections are left out, counted in one
            warning.
        labels: index of the class by category id.

    Raises:
        DataError: no such file, no such list, or an entry with an unknown image or category, a
            number that is none, or a box that has no area inside its image.
    """
    found: dict[int | str, list[tuple]] = {
        image_id: [] for image_id, size in sizes.items() if size is not None
    }
    left_out = []
    for number, entry in enumerate(_read_list(path)):
        where = f'Result {number} of {path}'
        if not isinstance(entry, dict):
            raise DataError(f'{where}: expected an object, got {entry!r}.')
        image_id = _known(entry, 'image_id', sizes, where)
        size = sizes[image_id]
        if size is None:
            left_out.append(f'result {number}')
            continue
        label = labels[_known(entry, 'category_id', labels, where)]
        score = entry.get('score')
        if not is_number(score):
            raise DataError(f"{where}: expected a number as 'score', got {score!r}.")
        found[image_id].append((_clipped(entry.get('bbox'), size, where), score, label))
    remark(str(path), {'results of other images left out': left_out})
    return {image_id: _stacked(entries) for image_id, entries in found.items()}


def _read_list(path: Path) -> list:
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(
            f'{path} is no file of COCO results: expected a list of objects with image_id, '
            f'category_id, bbox and score, got {type(content).__name__}.'
        )
    return content


def _known(entry: dict, key: str, known: Mapping, where: str) -> int | str:
    value = entry.get(key)
    if not isinstance(value, int | str) or value not in known:
        raise DataError(
            f'{where}: expected one of the {len(known)} ids of the annotation as {key!r} '
            f'({first_few(list(known))}), got {value!r}.'
        )
    return value


def _clipped(bbox: Any, size: Size, where: str) -> list[float]:
    """The corners of a box inside its image."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise DataError(f"{where}: expected x, y, width, height as 'bbox', got {bbox!r}.")
    x, y, width, height = map(float, bbox)
    x1, x2 = (min(max(value, 0), size[1]) for value in (x, x + width))
    y1, y2 = (min(max(value, 0), size[0]) for value in (y, y + height))
    if x1 >= x2 or y1 >= y2:
        raise DataError(
            f'{where}: expected a box with an area inside its image, {size[1]} wide and '
            f'{size[0]} high, got (x, y, width, height) {bbox}.'
        )
    return [x1, y1, x2, y2]


def _stacked(entries: list[tuple]) -> DetectedBoxes:
    boxes, scores, labels = zip(*entries, strict=True) if entries else ((), (), ())
    return DetectedBoxes(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
    )
