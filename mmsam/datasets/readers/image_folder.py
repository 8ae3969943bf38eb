"""Lists the images of a folder, and finds the annotation file of each."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mmsam.errors import DataError

from .base import AnnotatedImage
from .formats import check_format
from .problems import first_few


def image_files(img_dir: Path) -> list[Path]:
    """The image files of a folder, sorted; no two with the same stem.

    Raises:
        DataError: no such folder, or stems that are not unique.
    """
    suffixes = Image.registered_extensions()
    try:
        files = sorted(path for path in img_dir.iterdir() if path.suffix.lower() in suffixes)
    except OSError as error:
        raise DataError(
            f'Cannot list the images in {img_dir}: {error.strerror}; '
            'check data_root and data_prefix.'
        ) from error
    counts = Counter(path.stem for path in files)
    twice = [stem for stem, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f'Images in {img_dir} must differ in their stem, which names the annotation; '
            f'{len(twice)} do not: {first_few(twice)}.'
        )
    return files


def chosen_files(files: Sequence[Path], split: Path) -> list[Path]:
    """The files of a split, in its order.

    Args:
        files: of all images.
        split: text file with one image name or stem per line.

    Raises:
        DataError: no such file, or a name that is no image's.
    """
    by_name = {path.stem: path for path in files} | {path.name: path for path in files}
    return [by_name[name] for name in read_split(split, by_name, 'image')]


def read_split(split: Path, known: Sequence[str] | dict, what: str) -> list[str]:
    """The lines of a text file, each once.

    Args:
        split: the file.
        known: what a line may be.
        what: what that is called.

    Raises:
        DataError: no such file, or a line that is not known.
    """
    try:
        text = split.read_text('utf-8-sig')
    except (OSError, ValueError) as error:
        raise DataError(f'Cannot read split {split}: {error}.') from error
    names = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f'{len(unknown)} of {len(names)} names in split {split} are no {what}: '
            f'{first_few(unknown)}.'
        )
    return names


def annotation_files(
    images: Sequence[Path], ann_dir: Path, suffix: str, reader: str, options: str
) -> list[Path]:
    """The annotation file of each image: its stem and ``suffix``.

    Args:
        images: image files.
        ann_dir: folder of the annotations.
        suffix: what follows the stem, such as ``.png``.
        reader: the ``type`` of the reader that asks.
        options: those to check if files are missing.

    Raises:
        DataError: some images have none.
    """
    files = [ann_dir / (path.stem + suffix) for path in images]
    missing = [path for path in files if not path.is_file()]
    if len(missing) == len(files):
        check_format(ann_dir, reader)
    if missing:
        raise DataError(
            f'{len(missing)} of {len(files)} images in {images[0].parent} have no '
            f'annotation: {first_few(missing)}; check {options}.'
        )
    return files


def check_one_annotation_each(images: Sequence[AnnotatedImage]) -> None:
    """Check that no image is annotated twice.

    Raises:
        DataError: two annotations are of the same image file.
    """
    first: dict[str, AnnotatedImage] = {}
    for image in images:
        other = first.setdefault(image.img_path, image)
        if other is not image:
            raise DataError(
                f'Image {image.img_path} is annotated twice: {other.img_id} in {other.ann_path}, '
                f'{image.img_id} in {image.ann_path}.'
            )
