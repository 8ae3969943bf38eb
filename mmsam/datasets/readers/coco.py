"""COCO instance annotations."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as mask_api

from mmsam.datasets.options import check_choice
from mmsam.errors import DataError
from mmsam.geometry import Size

from .base import AnnotatedImage, AnnotationReader, Box, Objects, first_few
from .rle import RLE, checked_rle

_TOO_FEW_POINTS = 'polygons with fewer than 3 points'
_NO_PIXEL = 'objects without a pixel'


class CocoReader(AnnotationReader):
    """Reads polygons, compressed and uncompressed RLE of a COCO json file.

    Everything is checked when the file is read, before training, and kept as compressed RLE.
    Labels follow the ascending category ids, or the classes that are asked for. Polygons with
    fewer than three points and objects without a pixel are left out and counted in one warning.

    Args:
        data_root: folder that a relative ``ann_file`` belongs to.
        ann_file: the json file.
        keep_crowd: use annotations with ``iscrowd=1`` as one object each, else leave them out.
    """

    def __init__(self, data_root: str, ann_file: str, keep_crowd: bool = False) -> None:
        self.path = Path(data_root, ann_file)
        self.keep_crowd = keep_crowd

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        content = self._load()
        classes, labels = self._read_categories(content['categories'], classes)
        images = self._read_image_records(content['images'], img_dir)
        self._add_objects(content['annotations'], images, labels)
        ids = {label: key for key, label in labels.items() if label is not None}
        self.category_ids = tuple(ids[label] for label in range(len(classes)))
        return classes, list(images.values())

    def read_objects(self, image: AnnotatedImage) -> Objects:
        if image.objects is None:
            raise ValueError('the image does not come from this reader')
        return image.objects

    def _load(self) -> dict[str, list]:
        constants: list[str] = []

        def remember(constant: str) -> float:
            constants.append(constant)
            return float(constant)

        try:
            content = json.loads(self.path.read_text('utf-8-sig'), parse_constant=remember)
        except OSError as error:
            raise DataError(
                f'Cannot read annotation file {self.path}: {error.strerror}; '
                'check data_root and ann_file, or run the converter that makes it.'
            ) from error
        except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError
            raise DataError(f'{self.path} is not valid JSON: {error}.') from error
        if not isinstance(content, dict):
            raise DataError(f'{self.path} is not a COCO file: expected an object at the top.')
        for key in ('images', 'annotations', 'categories'):
            if not isinstance(content.get(key), list):
                raise DataError(f"{self.path} is not a COCO file: it has no list '{key}'.")
            for number, record in enumerate(content[key]):
                if not isinstance(record, dict) or not isinstance(record.get('id'), int | str):
                    raise DataError(f"{self.path}: {key}[{number}] is no object with an 'id'.")
            counts = Counter(record['id'] for record in content[key])
            twice = [name for name, count in counts.items() if count > 1]
            if twice:
                raise DataError(
                    f'{self.path}: ids in {key} must be unique, '
                    f'{len(twice)} are not: {first_few(twice)}.'
                )
        if constants:
            raise DataError(
                f'{self.path} is not valid JSON: {_record_with_no_number(content)} has '
                f'{constants[0]}, expected a number.'
            )
        return content

    def _read_categories(
        self, records: list[dict], classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], dict[int | str, int | None]]:
        """The class names, and category id to label; None for a category not asked for."""
        names = {record['id']: str(record.get('name', record['id'])) for record in records}
        if classes is None:
            ids = sorted(names, key=lambda name: (isinstance(name, str), name))
            return tuple(names[i] for i in ids), {i: label for label, i in enumerate(ids)}
        for name in classes:
            check_choice(f'class of {self.path}', name, names.values())
        label_of_name = {name: label for label, name in enumerate(classes)}
        return tuple(classes), {i: label_of_name.get(name) for i, name in names.items()}

    def _read_image_records(
        self, records: list[dict], img_dir: Path
    ) -> dict[int | str, AnnotatedImage]:
        images = {}
        for record in records:
            where = f'Image {record["id"]!r} in {self.path}'
            height, width = record.get('height'), record.get('width')
            if not isinstance(record.get('file_name'), str):
                raise DataError(f"{where} has no 'file_name'.")
            if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
                raise DataError(
                    f"{where} needs 'height' and 'width', whole numbers > 0: got {height}, {width}."
                )
            if height * width > self.max_pixels:
                raise DataError(
                    f'{where} is {height} high and {width} wide: more than {self.max_pixels} '
                    'pixels, the max_pixels of BoxPromptDataset.'
                )
            images[record['id']] = AnnotatedImage(
                img_path=str(img_dir / record['file_name']),
                img_id=record['id'],
                ann_path=str(self.path),
                objects=Objects(size=(height, width), rles=[], labels=[], names=[], boxes=[]),
            )
        return images

    def _add_objects(
        self,
        records: list[dict],
        images: dict[int | str, AnnotatedImage],
        labels: dict[int | str, int | None],
    ) -> None:
        lost = [r['id'] for r in records if not _is_key(r.get('image_id'), images)]
        if lost:
            raise DataError(
                f"{self.path}: {len(lost)} annotations have an 'image_id' that no image has: "
                f'annotation {first_few(lost)} (a number and its text are different ids).'
            )
        dropped: Counter[str] = Counter()
        for record in records:
            where = f'Annotation {record["id"]!r} in {self.path}'
            if not _is_key(record.get('category_id'), labels):
                raise DataError(
                    f"{where} has 'category_id' {record.get('category_id')!r}, which is not "
                    'among the categories.'
                )
            label = labels[record['category_id']]
            if label is None or (record.get('iscrowd') and not self.keep_crowd):
                continue
            objects = self.read_objects(images[record['image_id']])
            rle = _read_mask(record.get('segmentation'), objects.size, where, dropped)
            if rle is None or mask_api.area(rle) == 0:
                dropped[_NO_PIXEL] += 1
                continue
            objects.rles.append(rle)
            objects.labels.append(label)
            objects.names.append(f'annotation {record["id"]!r}')
            objects.boxes.append(_read_box(record.get('bbox')))  # type: ignore[union-attr]
        if dropped:
            text = ' and '.join(f'{count} {reason}' for reason, count in dropped.items())
            print_log(f'{self.path}: left out {text}.', logger='current', level=logging.WARNING)


def _record_with_no_number(content: dict[str, Any]) -> str:
    """The first record that JSON cannot hold, as it has NaN or an infinite number."""
    for key in ('images', 'annotations', 'categories'):
        for record in content[key]:
            try:
                json.dumps(record, allow_nan=False)
            except ValueError:
                return f'the record of {key} with id {record["id"]!r}'
    return 'what stands beside images, annotations and categories'


def _is_key(value: object, mapping: dict) -> bool:
    return isinstance(value, int | str) and value in mapping


def _read_box(bbox: object) -> Box | None:
    """COCO's (x, y, width, height) as xyxy; None where it is not a list of four numbers."""
    if not isinstance(bbox, list):
        return None
    try:
        x, y, width, height = (float(value) for value in bbox)
    except (TypeError, ValueError, OverflowError):
        return None
    return x, y, x + width, y + height


def _read_mask(segmentation: Any, size: Size, where: str, dropped: Counter[str]) -> RLE | None:
    """The mask in original px of one annotation, None if it has no part."""
    if isinstance(segmentation, dict):
        if segmentation.get('size') != list(size):
            raise DataError(
                f'{where} has an RLE of size {segmentation.get("size")}, '
                f'its image has (height, width) {list(size)}.'
            )
        try:
            return checked_rle(segmentation.get('counts'), size)
        except ValueError as error:
            raise DataError(f"{where} has a wrong RLE: 'counts' {error}.") from error
    if segmentation is None:
        return None
    if not isinstance(segmentation, list):
        raise DataError(f"{where}: 'segmentation' must be polygons or an RLE.")
    polygons = []
    for part in segmentation:
        polygon = _read_polygon(part, size, where)
        if len(polygon) < 6:
            dropped[_TOO_FEW_POINTS] += 1
        else:
            polygons.append(polygon.tolist())
    if not polygons:
        return None
    return mask_api.merge(mask_api.frPyObjects(polygons, *size))


def _read_polygon(part: object, size: Size, where: str) -> np.ndarray:
    """One polygon (2N,) float64 x, y, x, y, ... in original px."""
    try:
        polygon = np.asarray(part, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f'{where} has a polygon that is no list of numbers.') from error
    if polygon.ndim != 1:
        raise DataError(f'{where}: a polygon must be a list x1, y1, x2, y2, ... of numbers.')
    if len(polygon) % 2:
        raise DataError(f'{where} has a polygon of {len(polygon)} numbers: expected x, y pairs.')
    if not np.isfinite(polygon).all():
        raise DataError(f'{where} has a polygon with a coordinate that is not finite.')
    # A contour may leave the image a little; one that is far off is no contour, and large numbers
    # make pycocotools crash.
    height, width = size
    low, high = np.array([-width, -height]), np.array([2 * width, 2 * height])
    points = polygon.reshape(-1, 2)
    far = points[((points < low) | (points > high)).any(axis=1)]
    if len(far):
        raise DataError(
            f'{where} has a polygon point {tuple(far[0].tolist())} far outside its image, '
            f'which is {width} wide and {height} high.'
        )
    return polygon
