"""Label Studio's JSON export."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from mmsam.errors import DataError
from mmsam.geometry import Size
from mmsam.image_file import image_size

from .base import AnnotatedImage, AnnotationReader, Objects
from .class_names import label_by_name
from .formats import check_format
from .image_folder import check_one_annotation_each
from .json_file import is_number, read_json
from .label_studio_rle import rle_of_brush
from .problems import first_few, one_record, remark
from .rle import RLE
from .segmentations import (
    Dropped,
    checked_points,
    checked_polygon,
    checked_size,
    ellipse_polygon,
    rle_of_polygons,
    rotated,
    with_pixels,
)

_SHAPES = ('brush', 'polygon', 'rectangle', 'ellipse')
_NO_LABEL = 'object'
_UPLOAD = re.compile(r'[0-9a-f]{8}-')
"""What Label Studio writes before the name of a file that is uploaded."""

_IMAGE_NAME = re.compile(r'\.(jpe?g|png|tiff?|bmp|webp|gif)($|\?)', re.IGNORECASE)


class LabelStudioReader(AnnotationReader):
    """Reads brushes, polygons, rectangles and ellipses of a JSON export at the start.

    Each is an object. Tasks whose annotations are missing or cancelled (skipped) are left out; of
    several annotations the one that is marked as ground truth is taken, else the last that was
    changed. These, other results and objects without a pixel are counted in one warning.

    The image of a task is looked for in the folder of the images: by the path that the task has,
    then without its first folders, at last without the prefix of uploads (``1a2b3c4d-``). Labels
    follow the names of the classes in the alphabet, or the classes that are asked for; without a
    label the class is ``object``. Boxes are those of the masks.

    Args:
        data_root: folder that a relative ``ann_file`` belongs to.
        ann_file: the export, in the format called JSON (not JSON-MIN).
    """

    def __init__(self, data_root: str, ann_file: str) -> None:
        self.path = Path(data_root, ann_file)

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        images: list[AnnotatedImage] = []
        names: list[list[str]] = []
        dropped: Dropped = {}
        for number, task in enumerate(self._load()):
            name = f'task {task.get("id", f"number {number}")}'
            with one_record():
                annotation = self._choose_annotation(task, name, dropped)
                if annotation is None:
                    continue
                image, names_of_objects = self._read_task(task, annotation, name, img_dir, dropped)
                images.append(image)
                names.append(names_of_objects)
        remark(str(self.path), dropped)
        check_one_annotation_each(images)
        return label_by_name(images, names, classes, str(self.path)), images

    def read_objects(self, image: AnnotatedImage) -> Objects:
        if image.objects is None:
            raise ValueError('the image does not come from this reader')
        return image.objects

    def _load(self) -> list[dict]:
        content = read_json(self.path, 'label_studio')
        is_list = isinstance(content, list) and all(isinstance(task, dict) for task in content)
        if not is_list or not all(isinstance(task.get('data'), dict) for task in content):
            check_format(self.path, 'label_studio', content)
            raise DataError(
                f"{self.path} is not Label Studio's JSON: expected a list of tasks with 'data' and "
                "'annotations'; export as JSON, not as JSON-MIN."
            )
        return content

    def _choose_annotation(self, task: dict, name: str, dropped: Dropped) -> dict | None:
        annotations = task.get('annotations', task.get('completions'))  # the latter before 1.0
        if not isinstance(annotations, list) or not all(
            isinstance(annotation, dict) and isinstance(annotation.get('result'), list)
            for annotation in annotations
        ):
            raise DataError(
                f"T{name[1:]} in {self.path} has no list 'annotations' of objects with a "
                "list 'result'."
            )
        valid = [annotation for annotation in annotations if not annotation.get('was_cancelled')]
        if not valid:
            dropped.setdefault('tasks without an annotation left out', []).append(name)
            return None
        marked = [annotation for annotation in valid if annotation.get('ground_truth')]
        if len(marked or valid) > 1:
            what = 'tasks with several annotations, of which the last one changed is taken'
            dropped.setdefault(what, []).append(name)
        return max(marked or valid, key=lambda one: str(one.get('updated_at', '')))

    def _read_task(
        self, task: dict, annotation: dict, name: str, img_dir: Path, dropped: Dropped
    ) -> tuple[AnnotatedImage, list[str]]:
        """The image of a task, its objects without labels, and their labels as text."""
        where = f'T{name[1:]} in {self.path}'
        try:
            img_path = find_image(_image_of(task['data'], where), img_dir)
        except ValueError as error:
            raise DataError(f'{where} has a wrong address of its image: {error}.') from error
        results = annotation['result']
        if not all(isinstance(result, dict) for result in results):
            raise DataError(f"{where} has an annotation with a 'result' that is no object.")
        sizes = {
            checked_size(result, ('original_height', 'original_width'), where, self.max_pixels)
            for result in results
            if _kind(result) in _SHAPES
        }
        if len(sizes) > 1:
            raise DataError(f'{where} has results for images of {len(sizes)} sizes: expected one.')
        size = sizes.pop() if sizes else image_size(img_path)
        objects = Objects(size=size, rles=[], labels=[], names=[], boxes=None)
        labels_of_region = {
            str(result.get('id')): _label(result, where)
            for result in results
            if result.get('type') == 'labels'
        }
        names = []
        for number, result in enumerate(results):
            region = f'result {result.get("id", number)} of {name}'
            kind = _kind(result)
            if kind not in _SHAPES:
                if kind:
                    what = f'results of type {result.get("type")!r} left out'
                    dropped.setdefault(what, []).append(region)
                continue
            rle = _read_shape(result, kind, size, f'R{region[1:]} in {self.path}', region, dropped)
            rle = with_pixels(rle, region, dropped)
            if rle is not None:
                objects.rles.append(rle)
                objects.names.append(region)
                label = _label(result, where) or labels_of_region.get(str(result.get('id')))
                names.append(label or _NO_LABEL)
        image = AnnotatedImage(str(img_path), name, str(self.path), objects)
        return image, names


def find_image(address: str, img_dir: Path) -> Path:
    """The file in ``img_dir`` that a task's image is; the last one tried if there is none.

    Args:
        address: path or URL, as in a task; of ``/data/local-files/?d=PATH`` the path counts.
        img_dir: folder of the images.

    Raises:
        ValueError: the address is no URL, or names no file.
    """
    parts = urlsplit(address)
    given = parse_qs(parts.query).get('d')
    path = given[0] if given else unquote(parts.path)
    names = [name for name in path.replace('\\', '/').split('/') if name not in ('', '.', '..')]
    if not names:
        raise ValueError(f'{address!r} names no file')
    candidates = [img_dir.joinpath(*names[first:]) for first in range(len(names))]
    if _UPLOAD.match(names[-1]):
        candidates.append(img_dir / _UPLOAD.sub('', names[-1], count=1))
    # unlike Path.is_file, no error where a name is too long, as that of an image in the task itself
    return next((file for file in candidates if os.path.isfile(file)), candidates[-1])


def _image_of(data: dict, where: str) -> str:
    """The path or URL of a task's image: ``image``, or the one value that is a file of an image."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    if 'image' in texts:
        likely = ['image']
    else:
        likely = [key for key, text in texts.items() if _IMAGE_NAME.search(text)]
    if len(likely) != 1 or not texts[likely[0]].strip('./\\'):
        raise DataError(
            f"{where} must tell its image in data['image'], or in one other value: got the keys "
            f'{first_few(list(data))}.'
        )
    return texts[likely[0]]


def _kind(result: dict) -> str:
    """'polygon' for the types polygon and polygonlabels; nothing for that of mere labels."""
    return str(result.get('type', '')).removesuffix('labels')


def _label(result: dict, where: str) -> str | None:
    """The one label of a result; None if it has none."""
    value = result.get('value')
    labels = value.get(str(result.get('type'))) if isinstance(value, dict) else None
    if not labels:
        return None
    if not isinstance(labels, list) or len(labels) != 1:
        raise DataError(
            f'{where}: result {result.get("id")} has the labels {labels}, expected one.'
        )
    return str(labels[0])


def _read_shape(
    result: dict, kind: str, size: Size, where: str, name: str, dropped: Dropped
) -> RLE | None:
    """The mask of one result; None if it has none."""
    value = result.get('value')
    if not isinstance(value, dict):
        raise DataError(f"{where} has no object 'value'.")
    for key in ('image_rotation', 'item_index'):
        if result.get(key):
            raise DataError(
                f"{where} has '{key}' {result[key]}, which is not supported: expected 0."
            )
    percent = (size[1] / 100, size[0] / 100)
    if kind == 'brush':
        try:
            return rle_of_brush(value.get('rle'), size)
        except ValueError as error:
            raise DataError(f"{where}: 'rle' {error}.") from error
    if kind == 'polygon':
        points = checked_points(value.get('points'), size, where, percent)
        return rle_of_polygons([points.ravel()], size, name, dropped)
    keys = ('width', 'height') if kind == 'rectangle' else ('radiusX', 'radiusY')
    four = [value.get(key) for key in ('x', 'y', *keys)]
    x, y, width, height = checked_polygon(four, size, where, percent).tolist()
    if min(width, height) < 0:
        raise DataError(f'{where} has {" and ".join(map(repr, keys))} {four[2:]}: expected >= 0.')
    degrees = value.get('rotation') or 0
    if not is_number(degrees):
        raise DataError(f"{where} has the 'rotation' {degrees!r}, expected degrees.")
    if kind == 'ellipse':
        polygon = ellipse_polygon((x, y), (width, height), degrees)
    else:  # turned about its first corner
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
        polygon = (rotated(corners, degrees) + (x, y)).ravel()
    return rle_of_polygons([polygon], size, name, dropped)
