"""Pictures of the data: what the findings mean, and a few samples."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmsam.errors import MMSAMError
from mmsam.rgb_image import read_rgb
from mmsam.visualization import draw_objects

from .full_check import CheckedSplit

_EACH = 3
"""Pictures of each kind of finding."""


def draw_data(splits: Mapping[str, CheckedSplit], folder: str) -> None:
    """Write ``FOLDER/<split>/<what>_<number>.png``, the first few of each warning, and samples."""
    for name, split in splits.items():
        target = Path(folder, _slug(name))
        for stem, info, objects in _pictures(split):
            picture = _draw(info, objects)
            if picture is not None:
                target.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(target / f'{stem}.png')


def _pictures(split: CheckedSplit) -> Iterator[tuple[str, dict[str, Any], tuple[int, ...]]]:
    for number, info in enumerate(split.samples):
        yield f'sample_{number}', info, tuple(range(len(info['rles'])))
    for what, suspects in split.findings.warnings.items():
        shown = [(each.info, each.objects) for each in suspects if each.info is not None]
        for number, (info, objects) in enumerate(shown[:_EACH]):
            yield f'{_slug(what)}_{number}', info, objects


def _draw(info: dict[str, Any], objects: tuple[int, ...]) -> np.ndarray | None:
    """The picture; None of an image that cannot be read, which is an error of its own."""
    try:
        image = read_rgb(info['img_path'], info['image_reading']).pixels
    except MMSAMError:
        return None
    return draw_objects(image, np.nan_to_num(info['gt_boxes']), info['rles'], objects)


def _slug(words: str) -> str:
    return re.sub(r'\W+', '_', words).strip('_')
