"""Cuts a window out of the objects of an image."""

from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np

from mmsam.geometry import Window
from mmsam.structures.rle import RLE, mask_area, move_rle

from .readers.rle import boxes_of_rles

MIN_VISIBLE_SHARE = 0.1
"""Objects of which less than this share of their pixels is in the window are left out.

Source: sahi @ 0.11.36, ``slice_coco``, whose default ``min_area_ratio`` this is.
"""


class CroppedObjects(NamedTuple):
    """The objects that are visible in a window, in their order.

    Args:
        kept: (K,) int64, their indices among all objects.
        rles: K masks of the window's size.
        boxes: (K, 4) float32 xyxy, in the window's frame.
    """

    kept: np.ndarray
    rles: list[RLE]
    boxes: np.ndarray


def crop_rle(rle: RLE, window: Window) -> RLE:
    """A mask's part in a window, in the window's frame."""
    return move_rle(rle, (-window.top, -window.left), (window.height, window.width))


def crop_objects(
    rles: Sequence[RLE], boxes: np.ndarray, window: Window, always: Container[int] = ()
) -> CroppedObjects:
    """The objects of an image in a window of it.

    The box of an object that the window cuts is the box of its visible part; other boxes are moved
    and end at the window's edges. See ``MIN_VISIBLE_SHARE``.

    Args:
        rles: masks of the image's size.
        boxes: (N, 4) float32 xyxy, in the image's frame.
        window: within the image.
        always: indices of objects that are kept if the window has a pixel of them.
    """
    moved_boxes = boxes - np.array([window.left, window.top] * 2, np.float32)
    limits = np.array([window.width, window.height] * 2, np.float32)
    bounds = boxes_of_rles(list(rles))
    seen = (bounds[:, :2] < [window.left + window.width, window.top + window.height]).all(axis=1)
    seen &= (bounds[:, 2:] > [window.left, window.top]).all(axis=1)
    kept, cropped, cropped_boxes = [], [], []
    for index in np.flatnonzero(seen).tolist():
        rle = rles[index]
        part = crop_rle(rle, window)
        visible, area = mask_area(part), mask_area(rle)
        if visible < max(1, 0 if index in always else MIN_VISIBLE_SHARE * area):
            continue
        box = moved_boxes[index].clip(0, limits)
        if visible < area or (box[:2] >= box[2:]).any():
            box = boxes_of_rles([part])[0]
        kept.append(index)
        cropped.append(part)
        cropped_boxes.append(box)
    return CroppedObjects(
        np.array(kept, np.int64), cropped, np.array(cropped_boxes, np.float32).reshape(-1, 4)
    )
