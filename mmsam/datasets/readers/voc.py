"""Pascal VOC's segmentations: a mask of objects and a mask of classes for each image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmsam.errors import DataError

from .base import AnnotatedImage, AnnotationReader, Objects
from .class_names import choose_classes, read_class_names
from .formats import check_format
from .id_masks import read_ids
from .image_folder import annotation_files, chosen_files, image_files
from .problems import first_few
from .rle import rles_of_ids

_CLASSES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
    'tvmonitor',
)  # fmt: skip
_BACKGROUND, _VOID = 0, 255


class VOCReader(AnnotationReader):
    """Reads Pascal VOC's masks when a sample needs them; their boxes are the boxes of the masks.

    Every value of ``SegmentationObject`` but 0 and 255, the edges, is an object; its class is the
    value that ``SegmentationClass`` has there.

    Args:
        data_root: folder that relative paths belong to, such as ``VOCdevkit/VOC2012``.
        split: text file with one image name per line, such as
            ``ImageSets/Segmentation/train.txt``; None takes all images that have a mask.
        names_file: ``data.yaml``, or a text file with a line for each class, the background's
            first; None: VOC's 20.
        object_dir: folder of the masks of objects.
        class_dir: folder of the masks of classes.
    """

    def __init__(
        self,
        data_root: str,
        split: str | None = None,
        names_file: str | None = None,
        object_dir: str = 'SegmentationObject',
        class_dir: str = 'SegmentationClass',
    ) -> None:
        self.data_root = Path(data_root)
        self.split = None if split is None else Path(data_root, split)
        self.names_file = None if names_file is None else Path(data_root, names_file)
        self.object_dir = Path(data_root, object_dir)
        self.class_dir = Path(data_root, class_dir)
        self.labels: dict[int, int | None] = {}

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        if not self.object_dir.is_dir():
            check_format(self.data_root, 'voc')
            raise DataError(f'{self.object_dir} is no folder; check data_root and object_dir.')
        names = dict(enumerate(_CLASSES, 1))
        if self.names_file is not None:
            names = read_class_names(self.names_file)
            names.pop(_BACKGROUND, None)
        classes, self.labels = choose_classes(names, classes, str(self.names_file or 'VOC'))
        ids = {label: number for number, label in self.labels.items()}
        self.category_ids = tuple(ids[label] for label in range(len(classes)))
        files = image_files(img_dir)
        if self.split is not None:
            files = chosen_files(files, self.split)
        else:  # most images of VOC have boxes only
            files = [path for path in files if self._mask_of(path).is_file()]
        objects = annotation_files(files, self.object_dir, '.png', 'voc', 'split and object_dir')
        annotation_files(files, self.class_dir, '.png', 'voc', 'class_dir')
        return classes, [
            AnnotatedImage(str(path), path.stem, str(mask))
            for path, mask in zip(files, objects, strict=True)
        ]

    def _mask_of(self, image: Path) -> Path:
        return self.object_dir / f'{image.stem}.png'

    def read_objects(self, image: AnnotatedImage) -> Objects:
        ids = read_ids(image.ann_path, self.max_pixels)
        class_path = self.class_dir / Path(image.ann_path).name
        classes = read_ids(class_path, self.max_pixels)
        if ids.shape != classes.shape:
            raise DataError(
                f'Mask {class_path} is {_text(classes.shape)} (height x width), '
                f'{image.ann_path} is {_text(ids.shape)}: expected one size.'
            )
        objects = Objects(
            size=(ids.shape[0], ids.shape[1]), rles=[], labels=[], names=[], boxes=None
        )
        class_of = _classes_of_objects(ids, classes)
        for value, rle in rles_of_ids(ids).items():
            if value in (_BACKGROUND, _VOID):
                continue
            found = class_of[value] - {_VOID}
            if len(found) != 1 or not found <= self.labels.keys():
                raise DataError(
                    f'Object {value} of {image.ann_path} has the classes '
                    f'{first_few(sorted(found)) or "none"} in {class_path}: expected one of '
                    f'{first_few(list(self.labels))}.'
                )
            label = self.labels[found.pop()]
            if label is not None:
                objects.rles.append(rle)
                objects.labels.append(label)
                objects.names.append(f'mask value {value}')
        return objects


def _classes_of_objects(ids: np.ndarray, classes: np.ndarray) -> dict[int, set[int]]:
    """The values that ``classes`` (H, W) has where ``ids`` (H, W) has each of its own."""
    pairs = np.unique((ids.astype(np.int64) << 32) + classes)  # values have at most 32 bits
    found: dict[int, set[int]] = {}
    for value, number in zip((pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist(), strict=True):
        found.setdefault(value, set()).add(number)
    return found


def _text(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape))
