"""What every annotation format gives: images, and the objects in each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmsam.geometry import Size
from mmsam.image_file import MAX_PIXELS

from .rle import RLE
from .segmentations import Dropped

Box = tuple[float, float, float, float]


@dataclass
class Objects:
    """The K objects of one image; ``rles`` to ``boxes`` have length K and the same order.

    Args:
        size: (H, W) in original px, as the annotation says.
        rles: masks in original px, at least one pixel each.
        labels: index into the data set's classes.
        names: what an error message calls the object, such as ``annotation 12``.
        boxes: xyxy in original px, unchecked, None for an object that has none. None as a whole
            where the format knows masks only.
        left_out: of the file, for the data set to log; a reader of one file logs it itself.
        ignored_rles: as ``rles``, of N COCO crowds, in which nobody told the objects apart.
        ignored_labels: as ``labels``, of the N crowds.
    """

    size: Size
    rles: list[RLE]
    labels: list[int]
    names: list[str]
    boxes: list[Box | None] | None
    left_out: Dropped = field(default_factory=dict)
    ignored_rles: list[RLE] = field(default_factory=list)
    ignored_labels: list[int] = field(default_factory=list)


@dataclass
class AnnotatedImage:
    """One image of the data set.

    Args:
        img_path: image file.
        img_id: unique in the data set.
        ann_path: file that holds the annotation.
        objects: None where they are read when the sample is needed.
    """

    img_path: str
    img_id: int | str
    ann_path: str
    objects: Objects | None = None


class AnnotationReader(ABC):
    """Reads one annotation format.

    A reader's options are the arguments of its constructor; the first, ``data_root``, is the
    data set's, to which relative paths belong.
    """

    category_ids: tuple[int | str, ...] | None = None
    """The format's own ids of the classes, known after :meth:`read_images`; None if it has none."""

    max_pixels = MAX_PIXELS
    """Of the largest image or mask that is read."""

    @abstractmethod
    def read_images(
        self, img_dir: Path, classes: Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[AnnotatedImage]]:
        """Lists the images, whether they have objects or not.

        Args:
            img_dir: folder of the images.
            classes: the classes that the config asks for; objects of others are left out. None:
                all.

        Returns:
            The names of the classes, and the images.

        Raises:
            ConfigError: a class that the annotation does not know.
            DataError: a wrong or missing file or record.
        """

    @abstractmethod
    def read_objects(self, image: AnnotatedImage) -> Objects:
        """The objects of an image that :meth:`read_images` returned.

        Raises:
            DataError: a wrong or missing file.
        """
