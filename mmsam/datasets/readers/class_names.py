"""Names of classes: which a config asks for, and files that list them."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from mmsam.errors import ConfigError, DataError
from mmsam.options import check_choice

from .base import AnnotatedImage

Key = TypeVar('Key', bound=Hashable)


def choose_classes(
    names: Mapping[Key, str], classes: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], dict[Key, int | None]]:
    """The classes of a data set, and the label of each that its annotation has.

    Args:
        names: of all classes of the annotation, by its own ids, in the order of the labels.
        classes: those that the config asks for; None: all.
        where: the file or folder, for the error.

    Returns:
        The names, and id to label; None for a class that is not asked for.

    Raises:
        ConfigError: a class that the annotation does not know, or one that is asked for twice.
    """
    if classes is None:
        return tuple(names.values()), {key: label for label, key in enumerate(names)}
    for name in classes:
        check_choice(f'class of {where}', name, names.values())
    label_of_name = {name: label for label, name in enumerate(classes)}
    if len(label_of_name) < len(classes):
        raise ConfigError(f'Classes asked for must differ, got {", ".join(classes)}.')
    return tuple(classes), {key: label_of_name.get(name) for key, name in names.items()}


def label_by_name(
    images: Sequence[AnnotatedImage],
    names: Sequence[Sequence[str]],
    classes: Sequence[str] | None,
    where: str,
) -> tuple[str, ...]:
    """Label objects whose annotation has only names of classes; others than asked for are left out.

    Args:
        images: with their objects, whose ``labels`` are empty.
        names: the name of each object's class, for each image.
        classes: those that the config asks for; None: all, in the order of the alphabet.
        where: the file or folder, for the error.

    Returns:
        The names of the classes.

    Raises:
        ConfigError: a class that no object has.
    """
    known = sorted({name for names_of_image in names for name in names_of_image})
    classes, label_of = choose_classes({name: name for name in known}, classes, where)
    for image, names_of_image in zip(images, names, strict=True):
        objects = image.objects
        assert objects is not None
        labels = [label_of[name] for name in names_of_image]
        kept = [number for number, label in enumerate(labels) if label is not None]
        objects.rles = [objects.rles[number] for number in kept]
        objects.names = [objects.names[number] for number in kept]
        objects.labels = [label for label in labels if label is not None]
    return classes


def only_class(classes: Sequence[str] | None, what: str) -> tuple[str]:
    """The one class of an annotation that knows no classes, ``object`` unless a config names it.

    Raises:
        ConfigError: the config names several.
    """
    if classes is not None and len(classes) != 1:
        raise ConfigError(f'{what} knows one class, metainfo gives {len(classes)}: {classes}.')
    return ('object',) if classes is None else (classes[0],)


def read_class_names(path: Path) -> dict[int, str]:
    """The names of the classes by their number, ascending.

    Args:
        path: YAML with ``names``, a list or a mapping from number to name, as in YOLO's
            ``data.yaml``; or a text file with one name per line, counted from 0.

    Raises:
        DataError: no such file, or no names in it.
    """
    try:
        text = path.read_text('utf-8-sig')
        if path.suffix not in ('.yaml', '.yml'):
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise DataError(f'Cannot read the names of the classes from {path}: {reason}.') from error
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise DataError(f"{path} has no 'names', a list or numbers with a name each.")
    return {key: str(names[key]) for key in sorted(names)}
