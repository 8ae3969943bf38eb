"""Pages of ellipses and their COCO file: data of any size without a download."""

import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from mmsam.geometry import Size
from mmsam.structures.rle import RLE, encode_window

PAPER, INK = 230, 60


class Page(NamedTuple):
    """A gray page (H, W) uint8 and the masks (H, W) of its objects as RLE."""

    pixels: np.ndarray
    rles: list[RLE]

    def boxes(self) -> np.ndarray:
        """(K, 4) float64 xyxy, original px."""
        x, y, width, height = coco_mask.toBbox(self.rles).T
        return np.stack([x, y, x + width, y + height], axis=1)


def draw_page(
    size: Size, objects: int, object_sides: tuple[float, float] = (0.01, 0.05), seed: int = 0
) -> Page:
    """A page of ellipses; pages of other sizes but equal proportions show the same.

    Args:
        size: (H, W), px.
        objects: number of ellipses, which may overlap.
        object_sides: shortest and longest side of an ellipse's box, shares of the shorter side.
        seed: what decides the page.
    """
    rng = np.random.default_rng(seed)
    pixels = np.full(size, PAPER, np.uint8)
    rles = []
    for _ in range(objects):
        lengths = rng.uniform(*object_sides, 2) * min(size)
        height, width = (max(4, int(length)) for length in lengths)
        places = rng.uniform(0, 1, 2)
        top = int(places[0] * (size[0] - height))
        left = int(places[1] * (size[1] - width))
        ellipse = np.zeros((height, width), np.uint8)
        middle, axes = (width // 2, height // 2), (width // 2 - 1, height // 2 - 1)
        cv2.ellipse(ellipse, middle, axes, 0, 0, 360, 1, -1)
        pixels[top : top + height, left : left + width][ellipse > 0] = INK
        rles.append(encode_window(ellipse > 0, (top, left), size))
    return Page(pixels, rles)


def write_pages(root: Path, pages: list[Page], ann_file: str) -> None:
    """Write ``images/page_N.png`` and the COCO file ``ann_file`` into the folder ``root``."""
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for number, page in enumerate(pages):
        name = f'page_{number}.png'
        Image.fromarray(page.pixels).save(root / 'images' / name, compress_level=1)
        height, width = page.pixels.shape
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for rle in page.rles:
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=number,
                    category_id=1,
                    iscrowd=0,
                    bbox=coco_mask.toBbox(rle).tolist(),
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                )
            )
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='ellipse')])
    (root / ann_file).write_text(json.dumps(content))
