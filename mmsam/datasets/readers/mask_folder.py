"""A folder of mask images, one per image."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmsam.errors import ConfigError, DataError
from mmsam.options import check_choice

from .base import AnnotatedImage, AnnotationReader, Objects
from .class_names import only_class
from .formats import check_format
from .id_masks import read_ids
from .image_folder import annotation_files, chosen_files, image_files
from .problems import first_few
from .rle import rles_of_ids

_KINDS = ('binary', 'components', 'instance', 'label_map')


class MaskFolderReader(AnnotationReader):
    """Reads masks when a sample needs them; their boxes are the boxes of the masks.

    A mask has one channel of integers of any bit depth; of palette images the index counts, not
    the colour. ``kind`` says what the integers mean:

    - ``binary``: 0 is background, the one other value is one object;
    - ``components``: the same, and every 8-connected component is an object;
    - ``instance``: 0 is background, every other value is an object;
    - ``label_map``: every value is a class, and all its pixels are one object. As in mmseg, value
      v is ``metainfo['classes'][v]``, which a config must give.

    Args:
        data_root: folder that relative paths belong to.
        mask_dir: folder of the masks.
        kind: see above. The first three know one class, ``object`` unless a config names it.
        mask_suffix: what follows the image's stem in the name of its mask.
        split: text file with one image name or stem per line; None takes all images.
        ignore_index: of a label map, the value or values that are no object. None means 0, the
            background, and 255, the edges; where class 0 is an object, set 255.

    Raises:
        ConfigError: a wrong kind, or ``ignore_index`` for a kind that has none.
    """

    def __init__(
        self,
        data_root: str,
        mask_dir: str,
        kind: str,
        mask_suffix: str = '.png',
        split: str | None = None,
        ignore_index: int | Sequence[int] | None = None,
    ) -> None:
        check_choice('kind of mask_folder', kind, _KINDS)
        if ignore_index is not None and kind != 'label_map':
            raise ConfigError(f"ignore_index belongs to kind 'label_map', not to '{kind}'.")
        self.mask_dir = Path(data_root, mask_dir)
        self.kind = kind
        self.mask_suffix = mask_suffix
        self.split = None if split is None else Path(data_root, split)
        ignored = (0, 255) if ignore_index is None else ignore_index
        self.ignored = {ignored} if isinstance(ignored, int) else set(ignored)
        self.num_classes = 1

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        if self.kind == 'label_map' and classes is None:
            raise ConfigError(
                "kind='label_map' needs metainfo=dict(classes=(...)): the name of every value."
            )
        if self.kind != 'label_map':
            classes = only_class(classes, f"kind='{self.kind}'")
        classes = tuple(classes or ())
        self.num_classes = len(classes)
        files = image_files(img_dir)
        if self.split is not None:
            files = chosen_files(files, self.split)
        if self.kind == 'instance' and self.mask_dir.name == 'SegmentationObject':
            check_format(self.mask_dir, 'mask_folder')  # of Pascal VOC, whose 255 is no object
        masks = annotation_files(
            files, self.mask_dir, self.mask_suffix, 'mask_folder', 'mask_dir and mask_suffix'
        )
        return classes, [
            AnnotatedImage(str(path), path.stem, str(mask))
            for path, mask in zip(files, masks, strict=True)
        ]

    def read_objects(self, image: AnnotatedImage) -> Objects:
        ids = self._read_ids(image.ann_path)
        rles = rles_of_ids(ids)
        for ignored in self.ignored if self.kind == 'label_map' else (0,):
            rles.pop(ignored, None)
        values = list(rles)
        is_label_map = self.kind == 'label_map'
        if is_label_map:
            self._check_labels(values, image.ann_path)
        return Objects(
            size=(ids.shape[0], ids.shape[1]),
            rles=list(rles.values()),
            labels=values if is_label_map else [0] * len(values),
            names=[f'mask value {value}' for value in values],
            boxes=None,
        )

    def _read_ids(self, path: str) -> np.ndarray:
        """The mask's values (H, W); of components, their numbers."""
        ids = read_ids(path, self.max_pixels)
        if self.kind not in ('binary', 'components'):
            return ids
        values = np.unique(ids)
        if np.count_nonzero(values) > 1:
            raise DataError(
                f'Mask {path} has {len(values)} values ({first_few(values.tolist())}): kind='
                f"'{self.kind}' takes 0 and one other; is it 'instance' or 'label_map'?"
            )
        if self.kind == 'binary':
            return ids
        return cv2.connectedComponents((ids != 0).astype(np.uint8), connectivity=8)[1]

    def _check_labels(self, values: list[int], path: str) -> None:
        outside = [value for value in values if not 0 <= value < self.num_classes]
        if outside:
            raise DataError(
                f'Mask {path} has the values {first_few(outside)}: expected 0 to '
                f'{self.num_classes - 1} for {self.num_classes} classes, or ignore_index '
                f'({first_few(sorted(self.ignored))}).'
            )
