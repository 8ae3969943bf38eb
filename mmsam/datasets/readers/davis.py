"""DAVIS and what is laid out like it: a folder of masks for each sequence."""

from collections.abc import Sequence
from pathlib import Path

from mmsam.errors import DataError

from .base import AnnotatedImage, AnnotationReader, Objects
from .class_names import only_class
from .formats import check_format
from .id_masks import read_ids
from .image_folder import image_files, read_split
from .problems import first_few
from .rle import rles_of_ids


class DavisReader(AnnotationReader):
    """Reads the frames of videos as images, their masks when a sample needs them.

    ``img_dir/SEQUENCE/00000.jpg`` has the mask ``ann_dir/SEQUENCE/00000.png``, in which every
    value but 0 is an object. Frames without a mask are left out. Boxes are those of the masks;
    there is one class, ``object`` unless a config names it.

    Args:
        data_root: folder that relative paths belong to.
        ann_dir: folder of the sequences' masks, such as ``Annotations/480p``.
        split: text file with one sequence per line, such as ``ImageSets/2017/train.txt``; None
            takes all.
        ignore_index: a value that is no object, as 255 in ``Annotations_unsupervised``; in DAVIS
            2016 it is the object.
    """

    def __init__(
        self,
        data_root: str,
        ann_dir: str,
        split: str | None = None,
        ignore_index: int | None = None,
    ) -> None:
        self.ann_dir = Path(data_root, ann_dir)
        self.split = None if split is None else Path(data_root, split)
        self.ignore_index = ignore_index

    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        try:
            sequences = sorted(path.name for path in self.ann_dir.iterdir() if path.is_dir())
        except OSError as error:
            check_format(self.ann_dir, 'davis')
            raise DataError(
                f'Cannot list the sequences in {self.ann_dir}: {error.strerror}; check ann_dir.'
            ) from error
        if not sequences:
            check_format(self.ann_dir, 'davis')
        if self.split is not None:
            sequences = read_split(self.split, sequences, f'sequence in {self.ann_dir}')
        images, missing = [], []
        for sequence in sequences:
            frames = {path.stem: path for path in image_files(img_dir / sequence)}
            for mask in sorted((self.ann_dir / sequence).glob('*.png')):
                if mask.stem in frames:
                    name = f'{sequence}/{mask.stem}'
                    images.append(AnnotatedImage(str(frames[mask.stem]), name, str(mask)))
                else:
                    missing.append(mask)
        if missing:
            raise DataError(
                f'{len(missing)} masks in {self.ann_dir} have no image in {img_dir}: '
                f'{first_few(missing)}; check data_prefix.'
            )
        if not images:
            check_format(self.ann_dir, 'davis')
        return only_class(classes, 'DAVIS'), images

    def read_objects(self, image: AnnotatedImage) -> Objects:
        ids = read_ids(image.ann_path, self.max_pixels)
        rles = rles_of_ids(ids)
        rles.pop(0, None)
        if self.ignore_index is not None:
            rles.pop(self.ignore_index, None)
        return Objects(
            size=(ids.shape[0], ids.shape[1]),
            rles=list(rles.values()),
            labels=[0] * len(rles),
            names=[f'mask value {value}' for value in rles],
            boxes=None,
        )
