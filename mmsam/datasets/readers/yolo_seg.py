"""YOLO's polygons: a text file for each image."""

from collections.abc import Sequence
from pathlib import Path

from mmsam.errors import ConfigError, DataError
from mmsam.image_file import image_size

from .base import AnnotatedImage, AnnotationReader, Objects
from .class_names import choose_classes, read_class_names
from .formats import check_format
from .image_folder import image_files
from .problems import first_few, remark
from .segmentations import checked_polygon, rle_of_polygons, with_pixels

NO_FILE = 'images without a label file taken as empty'


class YoloSegReader(AnnotationReader):
    """Reads YOLO's segmentation labels when a sample needs them; their boxes are the masks' boxes.

    A line is an object: the number of its class, and its polygon x1 y1 x2 y2 ... in shares of the
    image's width and height. An image without a label file has no objects, as with YOLO; polygons
    with fewer than three points are left out; each is counted in one warning.

    Args:
        data_root: folder that relative paths belong to.
        ann_dir: folder of the label files, ``labels/train`` for instance.
        names_file: ``data.yaml``, or a text file with the name of a class in each line. None:
            ``metainfo['classes']`` names all of them.

    Raises:
        ConfigError: neither ``names_file`` nor ``metainfo`` names the classes.
    """

    def __init__(self, data_root: str, ann_dir: str, names_file: str | None = None) -> None:
        self.ann_dir = Path(data_root, ann_dir)
        self.names_file = None if names_file is None else Path(data_root, names_file)
        self.labels: dict[int, int | None] = {}

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        files = image_files(img_dir)
        annotations = [self.ann_dir / f'{path.stem}.txt' for path in files]
        self._check_files(img_dir, annotations)
        if self.names_file is not None:
            names = read_class_names(self.names_file)
        elif classes is not None:
            names = dict(enumerate(classes))
        else:
            raise ConfigError(
                "Reader 'yolo_seg' needs names_file, such as data.yaml, or metainfo=dict("
                'classes=(...)): the names of the classes.'
            )
        classes, self.labels = choose_classes(names, classes, str(self.names_file))
        ids = {label: number for number, label in self.labels.items()}
        self.category_ids = tuple(ids[label] for label in range(len(classes)))
        return classes, [
            AnnotatedImage(str(path), path.stem, str(annotation))
            for path, annotation in zip(files, annotations, strict=True)
        ]

    def _check_files(self, img_dir: Path, annotations: Sequence[Path]) -> None:
        """Label files belong to images; some images, but not all, may have none."""
        known = set(annotations)
        lost = sorted(path for path in self.ann_dir.glob('*.txt') if path not in known)
        lost = [path for path in lost if path.name != 'classes.txt']  # some tools put it here
        missing = [path for path in annotations if not path.is_file()]
        if len(missing) == len(annotations):
            check_format(self.ann_dir, 'yolo_seg')
            raise DataError(
                f'None of the {len(annotations)} images in {img_dir} has a label file in '
                f'{self.ann_dir}; check ann_dir and data_prefix.'
            )
        if lost:
            raise DataError(
                f'{len(lost)} label files in {self.ann_dir} have no image in {img_dir}: '
                f'{first_few(lost)}.'
            )
        remark(str(self.ann_dir), {NO_FILE: [path.name for path in missing]})

    def read_objects(self, image: AnnotatedImage) -> Objects:
        size = image_size(image.img_path)
        objects = Objects(size=size, rles=[], labels=[], names=[], boxes=None)
        path = Path(image.ann_path)
        if not path.is_file():
            return objects
        try:
            lines = path.read_text('utf-8-sig').splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f'Cannot read label file {path}: {error}.') from error
        for number, line in enumerate(lines, 1):
            values = line.split()
            if not values:
                continue
            name = f'line {number}'
            where = f'L{name[1:]} of {path}'
            label = self._label(values[0], where)
            if len(values) == 5:
                raise DataError(
                    f'{where} has a class and 4 numbers, a box of YOLO: expected a polygon '
                    'x1 y1 x2 y2 x3 y3 ...'
                )
            polygon = checked_polygon(values[1:], size, where, unit=(size[1], size[0]))
            long_name = f'{name} of {path.name}'
            rle = rle_of_polygons([polygon], size, long_name, objects.left_out)
            rle = with_pixels(rle, long_name, objects.left_out)
            if rle is not None and label is not None:
                objects.rles.append(rle)
                objects.labels.append(label)
                objects.names.append(name)
        return objects

    def _label(self, text: str, where: str) -> int | None:
        number = int(text) if text.isascii() and text.isdigit() else None
        if number not in self.labels:
            raise DataError(
                f'{where} has the class {text!r}: expected one of the {len(self.labels)} numbers '
                f'{first_few(list(self.labels))}.'
            )
        return self.labels[number]
