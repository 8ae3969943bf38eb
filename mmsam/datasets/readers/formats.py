"""Tells the annotation formats apart, for whoever named the wrong one in a config."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from mmsam.errors import DataError

from .id_masks import INTEGER_MODES

_TEXTS = ('.json', '.txt', '.yaml', '.yml')
_YOLO_LINE = re.compile(r'\d+([ \t]+-?[\d.]+(e-?\d+)?){4,}')
_YOLO_NAMES = re.compile(r'(?:.*\n)*?names:')
_FEW = 50
"""Entries of a folder that are looked at."""


def check_format(path: Path, reader: str, content: Any = None) -> None:
    """Called where a file or folder is not what a reader expects: perhaps another one reads it.

    Args:
        path: the file or folder.
        reader: the ``type`` of the reader that asks.
        content: of the file, if it is JSON and has been read.

    Raises:
        DataError: it is evidently of another reader's format; the message names that.
    """
    found = _format_of_json(content) if content is not None else _format_of(path)
    if found is not None and found != reader:
        what = 'folder' if path.is_dir() else 'file'
        raise DataError(
            f"{path} looks like a {found} {what}: use reader=dict(type='{found}') instead of "
            f"'{reader}'."
        )


def _format_of(path: Path, depth: int = 3) -> str | None:
    """The ``type`` of the reader whose format a file, or a folder and those in it, has."""
    try:
        return _format_of_folder(path, depth) if path.is_dir() else _format_of_file(path)
    except (OSError, ValueError, RecursionError, Image.DecompressionBombError):
        return None  # unreadable, no text, no JSON, no image, or a vast one


def _format_of_folder(folder: Path, depth: int) -> str | None:
    entries = sorted(itertools.islice(folder.iterdir(), _FEW))
    if {folder.name, *(path.name for path in entries)} & {
        'SegmentationObject',
        'SegmentationClass',
    }:
        return 'voc'
    files = [path for path in entries if path.is_file()]
    files.sort(key=lambda path: path.suffix not in _TEXTS)  # a mask tells less than a text
    for path in files:
        if found := _format_of(path):
            return found
    folders = [path for path in entries if path.is_dir()] if depth else []
    inner = [_format_of(path, depth - 1) for path in folders]
    if inner and set(inner) == {'mask_folder'}:
        return 'davis'  # a folder of masks for each sequence
    return next((found for found in inner if found), None)


def _format_of_file(path: Path) -> str | None:
    if path.suffix == '.json':
        return _format_of_json(json.loads(path.read_text('utf-8-sig')))
    if path.suffix in _TEXTS:
        text = path.read_text('utf-8-sig')
        is_yolo = re.match(_YOLO_LINE if path.suffix == '.txt' else _YOLO_NAMES, text)
        return 'yolo_seg' if is_yolo else None
    with Image.open(path) as image:
        is_mask = image.format != 'JPEG' and image.mode in INTEGER_MODES
        return 'mask_folder' if is_mask else None


def _format_of_json(content: Any) -> str | None:
    if isinstance(content, dict):
        lists = {key for key, value in content.items() if isinstance(value, list)}
        if {'images', 'annotations'} <= lists:
            return 'coco'
        if 'annotations' in lists and isinstance(content.get('image'), dict):
            return 'sa1b'
        if 'shapes' in lists and 'imagePath' in content:
            return 'labelme'
    is_task = isinstance(content, list) and content and isinstance(content[0], dict)
    if is_task and 'data' in content[0] and {'annotations', 'completions'} & content[0].keys():
        return 'label_studio'
    return None
