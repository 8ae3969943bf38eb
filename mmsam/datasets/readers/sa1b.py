"""SA-1B: a json file for each image."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmsam.errors import DataError

from .base import AnnotatedImage, AnnotationReader, Objects
from .class_names import only_class
from .formats import check_format
from .image_folder import annotation_files, image_files
from .json_file import read_json
from .problems import first_few
from .segmentations import checked_size, read_segmentation


class SA1BReader(AnnotationReader):
    """Reads the files of SA-1B, ``sa_1.json`` for ``sa_1.jpg``, when a sample needs them.

    Boxes are those of the masks: SA-1B's own end a pixel early (a mask 18 px wide has a box of 17).
    There is one class, ``object`` unless a config names it. Polygons with fewer than three points
    and objects without a pixel are left out and counted in one warning.

    Args:
        data_root: folder that a relative ``ann_dir`` belongs to.
        ann_dir: folder of the json files; None: beside the images.
    """

    def __init__(self, data_root: str, ann_dir: str | None = None) -> None:
        self.ann_dir = None if ann_dir is None else Path(data_root, ann_dir)

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        files = image_files(img_dir)
        ann_dir = self.ann_dir or img_dir
        annotations = annotation_files(files, ann_dir, '.json', 'sa1b', 'ann_dir')
        return only_class(classes, 'SA-1B'), [
            AnnotatedImage(str(path), path.stem, str(annotation))
            for path, annotation in zip(files, annotations, strict=True)
        ]

    def read_objects(self, image: AnnotatedImage) -> Objects:
        path = Path(image.ann_path)
        content = read_json(path, 'sa1b')
        record, annotations = None, None
        if isinstance(content, dict):
            record, annotations = content.get('image'), content.get('annotations')
        if not isinstance(record, dict) or not isinstance(annotations, list):
            check_format(path, 'sa1b', content)
            raise DataError(
                f"{path} is not an SA-1B file: expected an object 'image' and a list 'annotations'."
            )
        size = checked_size(record, ('height', 'width'), f'Image in {path}', self.max_pixels)
        objects = Objects(size=size, rles=[], labels=[], names=[], boxes=None)
        for number, annotation in enumerate(annotations):
            if not isinstance(annotation, dict) or not isinstance(annotation.get('id'), int | str):
                raise DataError(f"{path}: annotations[{number}] is no object with an 'id'.")
            name = f'annotation {annotation["id"]!r}'
            where = f'A{name[1:]} in {path}'
            long_name = f'{name} of {path.name}'
            segmentation = annotation.get('segmentation')
            rle = read_segmentation(segmentation, size, where, long_name, objects.left_out)
            if rle is not None:
                objects.rles.append(rle)
                objects.names.append(name)
        counts = Counter(annotation['id'] for annotation in annotations)
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            raise DataError(
                f'{path}: ids of annotations must be unique, {len(twice)} are not: '
                f'{first_few(twice)}.'
            )
        objects.labels = [0] * len(objects.rles)
        return objects
