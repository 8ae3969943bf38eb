"""labelme: a json file for each image."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

from mmsam.errors import DataError
from mmsam.geometry import Size
from mmsam.image_file import image_size
from mmsam.structures.rle import RLE, encode_window

from .base import AnnotatedImage, AnnotationReader, Objects
from .class_names import label_by_name
from .formats import check_format
from .image_folder import check_one_annotation_each
from .json_file import read_json
from .problems import one_record, remark
from .segmentations import (
    Dropped,
    checked_points,
    checked_size,
    ellipse_polygon,
    rle_of_polygons,
    with_pixels,
)

_OPEN_SHAPES = ('point', 'points', 'line', 'linestrip')
_SHAPES = ('polygon', 'rectangle', 'oriented_rectangle', 'circle', 'mask')


class LabelmeReader(AnnotationReader):
    """Reads labelme's json files at the start; images without one are not part of the data set.

    Polygons, rectangles, circles and masks are objects; shapes with the same label and
    ``group_id`` are parts of one. Points and lines, polygons with fewer than three points and
    objects without a pixel are left out and counted in one warning. Labels follow the names of the
    classes in the alphabet, or the classes that are asked for. Boxes are those of the masks.

    Args:
        data_root: folder that a relative ``ann_dir`` belongs to.
        ann_dir: folder of the json files, which may be in subfolders like those of their images;
            None: beside the images.
    """

    def __init__(self, data_root: str, ann_dir: str | None = None) -> None:
        self.ann_dir = None if ann_dir is None else Path(data_root, ann_dir)

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        folder = self.ann_dir or img_dir
        files = sorted(folder.rglob('*.json'))
        if not files:
            check_format(folder, 'labelme')
            raise DataError(f'{folder} has no json files; check data_root and ann_dir.')
        images: list[AnnotatedImage] = []
        names: list[list[str]] = []
        dropped: Dropped = {}
        for path in files:
            relative = path.relative_to(folder)
            with one_record():
                image, names_of_objects = self._read_file(path, img_dir / relative.parent, dropped)
                image.img_id = relative.with_suffix('').as_posix()
                images.append(image)
                names.append(names_of_objects)
        remark(str(folder), dropped)
        check_one_annotation_each(images)
        return label_by_name(images, names, classes, str(folder)), images

    def read_objects(self, image: AnnotatedImage) -> Objects:
        if image.objects is None:
            raise ValueError('the image does not come from this reader')
        return image.objects

    def _read_file(
        self, path: Path, img_dir: Path, dropped: Dropped
    ) -> tuple[AnnotatedImage, list[str]]:
        """The image of a file, its objects without labels, and their labels as text."""
        content = read_json(path, 'labelme')
        if not isinstance(content, dict) or not isinstance(content.get('shapes'), list):
            check_format(path, 'labelme', content)
            raise DataError(f"{path} is not a labelme file: it has no list 'shapes'.")
        name = content.get('imagePath')
        if not isinstance(name, str) or not name:
            raise DataError(f"{path} has no 'imagePath', the name of its image.")
        img_path = img_dir / PureWindowsPath(name).name  # takes both kinds of slashes
        if content.get('imageHeight') is None and content.get('imageWidth') is None:
            size = image_size(img_path)  # of the first versions of labelme
        else:
            size = checked_size(content, ('imageHeight', 'imageWidth'), str(path), self.max_pixels)
        objects = Objects(size=size, rles=[], labels=[], names=[], boxes=None)
        labels = []
        for (label, _), numbers in _groups(content['shapes'], path).items():
            text = 'shape' if len(numbers) == 1 else 'shapes'
            name = f'{text} {", ".join(map(str, numbers))} of {path.name}'
            parts = [
                part
                for number in numbers
                if (part := _read_shape(content['shapes'][number], number, size, path, dropped))
            ]
            if not parts:
                continue
            rle = with_pixels(mask_api.merge(parts), name, dropped)
            if rle is not None:
                objects.rles.append(rle)
                objects.names.append(name)
                labels.append(label)
        return AnnotatedImage(str(img_path), '', str(path), objects), labels


def _groups(shapes: list, path: Path) -> dict[tuple[str, object], list[int]]:
    """The numbers of the shapes of each object, by label and group."""
    groups: dict[tuple[str, object], list[int]] = {}
    for number, shape in enumerate(shapes):
        if not isinstance(shape, dict) or not isinstance(shape.get('label'), str):
            raise DataError(f"{path}: shapes[{number}] is no object with a 'label'.")
        group = shape.get('group_id')
        if not isinstance(group, int | str | None):
            raise DataError(
                f"Shape {number} in {path}: 'group_id' must be a number, got {group!r}."
            )
        key = ('alone', number) if group is None else group
        groups.setdefault((shape['label'], key), []).append(number)
    return groups


def _read_shape(shape: dict, number: int, size: Size, path: Path, dropped: Dropped) -> RLE | None:
    """The mask of one shape; None if it has none."""
    where = f'Shape {number} in {path}'
    name = f'shape {number} of {path.name}'
    kind = shape.get('shape_type') or 'polygon'  # the first versions had no others
    if kind in _OPEN_SHAPES:
        dropped.setdefault('points and lines left out', []).append(name)
        return None
    if kind not in _SHAPES:
        raise DataError(
            f'{where} has the shape_type {kind!r}: expected one of {", ".join(_SHAPES)}.'
        )
    points = checked_points(shape.get('points'), size, where)
    if kind in ('rectangle', 'circle', 'mask') and len(points) != 2:
        if kind != 'rectangle' or len(points) != 4:  # its corners, as some tools write it
            raise DataError(f'{where} is a {kind} of {len(points)} points: expected 2.')
    elif kind == 'rectangle':
        (x1, y1), (x2, y2) = points
        points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    elif kind == 'circle':
        radius = float(np.hypot(*(points[1] - points[0])))
        points = ellipse_polygon(points[0], (radius, radius))
    elif kind == 'mask':
        return _read_mask(shape.get('mask'), points, size, where)
    return rle_of_polygons([points.ravel()], size, name, dropped)


def _read_mask(text: object, points: np.ndarray, size: Size, where: str) -> RLE:
    """The mask of a shape that has one: a PNG of the pixels from one point to the other."""
    (x1, y1), (x2, y2) = np.rint(points).astype(int).tolist()
    expected = (x2 - x1 + 1, y2 - y1 + 1)
    try:
        if not isinstance(text, str):
            raise ValueError(f'expected text, got {type(text).__name__}')
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
        if any(abs(side - other) > 1 for side, other in zip(image.size, expected, strict=True)):
            raise ValueError(f'it is {image.size} (width, height), its points are for {expected}')
        if len(image.getbands()) != 1:
            raise ValueError(f'it has mode {image.mode}, expected one channel')
        pixels = np.asarray(image) != 0
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: 'mask' is no PNG of its points: {error}.") from error
    top, left = max(y1, 0), max(x1, 0)
    inside = pixels[top - y1 : max(size[0] - y1, 0), left - x1 : max(size[1] - x1, 0)]
    return encode_window(inside, (top, left), size)
