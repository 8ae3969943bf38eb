"""COCO instance annotations."""

from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path

from mmsam.errors import DataError

from .base import AnnotatedImage, AnnotationReader, Box, Objects
from .class_names import choose_classes
from .formats import check_format
from .json_file import read_json
from .problems import first_few, one_record, remark
from .segmentations import Dropped, checked_size, read_segmentation

_CROWD = 'annotations of crowds left out of the objects'


class CocoReader(AnnotationReader):
    """Reads polygons, compressed and uncompressed RLE of a COCO json file.

    Everything is checked when the file is read, before training, and kept as compressed RLE.
    Labels follow the ascending category ids, or the classes that are asked for. Polygons with
    fewer than three points, objects without a pixel and crowds are left out and counted in one
    warning. Crowds are handed over beside the objects, as what a test may ignore.

    Args:
        data_root: folder that a relative ``ann_file`` belongs to.
        ann_file: the json file.
        keep_crowd: use annotations with ``iscrowd=1`` as one object each, not as a crowd.
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
        image_ids = {record['id'] for record in content['images']}  # also of those left out
        self._add_objects(content['annotations'], images, image_ids, labels)
        ids = {label: key for key, label in labels.items() if label is not None}
        self.category_ids = tuple(ids[label] for label in range(len(classes)))
        return classes, list(images.values())

    def read_objects(self, image: AnnotatedImage) -> Objects:
        if image.objects is None:
            raise ValueError('the image does not come from this reader')
        return image.objects

    def _load(self) -> dict[str, list]:
        content = read_json(self.path, 'coco')
        if not isinstance(content, dict):
            check_format(self.path, 'coco', content)
            raise DataError(f'{self.path} is not a COCO file: expected an object at the top.')
        for key in ('images', 'annotations', 'categories'):
            if not isinstance(content.get(key), list):
                check_format(self.path, 'coco', content)
                raise DataError(f"{self.path} is not a COCO file: it has no list '{key}'.")
            content[key] = self._with_ids(content[key], key)
        return content

    def _with_ids(self, records: list, key: str) -> list[dict]:
        """The records of a list, which are dicts, each with an id of its own."""
        good = []
        for number, record in enumerate(records):
            with one_record():
                if not isinstance(record, dict) or not isinstance(record.get('id'), int | str):
                    raise DataError(f"{self.path}: {key}[{number}] is no object with an 'id'.")
                good.append(record)
        counts = Counter(record['id'] for record in good)
        twice = [name for name, count in counts.items() if count > 1]
        with one_record():
            if twice:
                raise DataError(
                    f'{self.path}: ids in {key} must be unique, '
                    f'{len(twice)} are not: {first_few(twice)}.'
                )
        return good

    def _read_categories(
        self, records: list[dict], classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], dict[int | str, int | None]]:
        """The class names, and category id to label; None for a category not asked for."""
        names = {record['id']: str(record.get('name', record['id'])) for record in records}
        ids = sorted(names, key=lambda name: (isinstance(name, str), name))
        return choose_classes({key: names[key] for key in ids}, classes, str(self.path))

    def _read_image_records(
        self, records: list[dict], img_dir: Path
    ) -> dict[int | str, AnnotatedImage]:
        images = {}
        for record in records:
            with one_record():
                images[record['id']] = self._read_image_record(record, img_dir)
        return images

    def _read_image_record(self, record: dict, img_dir: Path) -> AnnotatedImage:
        where = f'Image {record["id"]!r} in {self.path}'
        if not isinstance(record.get('file_name'), str):
            raise DataError(f"{where} has no 'file_name'.")
        size = checked_size(record, ('height', 'width'), where, self.max_pixels)
        return AnnotatedImage(
            img_path=str(img_dir / record['file_name']),
            img_id=record['id'],
            ann_path=str(self.path),
            objects=Objects(size=size, rles=[], labels=[], names=[], boxes=[]),
        )

    def _add_objects(
        self,
        records: list[dict],
        images: dict[int | str, AnnotatedImage],
        image_ids: set[int | str],
        labels: dict[int | str, int | None],
    ) -> None:
        lost = [r['id'] for r in records if not _is_key(r.get('image_id'), image_ids)]
        with one_record():
            if lost:
                raise DataError(
                    f"{self.path}: {len(lost)} annotations have an 'image_id' that no image has: "
                    f'annotation {first_few(lost)} (a number and its text are different ids).'
                )
        dropped: Dropped = {}
        for record in records:
            if _is_key(record.get('image_id'), images):
                with one_record():
                    self._add_object(record, images[record['image_id']], labels, dropped)
        remark(str(self.path), dropped)

    def _add_object(
        self,
        record: dict,
        image: AnnotatedImage,
        labels: dict[int | str, int | None],
        dropped: Dropped,
    ) -> None:
        name = f'annotation {record["id"]!r}'
        where = f'A{name[1:]} in {self.path}'
        if not _is_key(record.get('category_id'), labels):
            raise DataError(
                f"{where} has 'category_id' {record.get('category_id')!r}, which is not "
                'among the categories.'
            )
        label = labels[record['category_id']]
        if label is None:
            return
        objects = self.read_objects(image)
        rle = read_segmentation(record.get('segmentation'), objects.size, where, name, dropped)
        if rle is None:
            return
        if record.get('iscrowd') and not self.keep_crowd:
            dropped.setdefault(_CROWD, []).append(name)
            objects.ignored_rles.append(rle)
            objects.ignored_labels.append(label)
        else:
            objects.rles.append(rle)
            objects.labels.append(label)
            objects.names.append(name)
            objects.boxes.append(_read_box(record.get('bbox')))  # type: ignore[union-attr]


def _is_key(value: object, keys: Container) -> bool:
    return isinstance(value, int | str) and value in keys


def _read_box(bbox: object) -> Box | None:
    """COCO's (x, y, width, height) as xyxy; None where it is not a list of four numbers."""
    if not isinstance(bbox, list):
        return None
    try:
        x, y, width, height = (float(value) for value in bbox)
    except (TypeError, ValueError, OverflowError):
        return None
    return x, y, x + width, y + height
