"""Sizes, polygons and masks of annotation records, checked before pycocotools trusts them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from mmsam.errors import DataError
from mmsam.geometry import Size

from .rle import RLE, checked_rle

TOO_FEW_POINTS = 'polygons with fewer than 3 points left out'
NO_PIXEL = 'objects without a pixel left out'

Dropped = dict[str, list[str]]
"""Why records are left out, to their names; see :func:`.problems.remark`."""


def checked_size(record: Mapping, keys: tuple[str, str], where: str, max_pixels: int) -> Size:
    """The size (H, W) that a record tells of its image.

    Args:
        record: of the file.
        keys: its keys for height and width.
        where: what a message calls the record.
        max_pixels: that an image may have.

    Raises:
        DataError: no whole numbers > 0, or more pixels than an image may have.
    """
    height, width = (record.get(key) for key in keys)
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise DataError(
            f'{where} needs {keys[0]!r} and {keys[1]!r}, whole numbers > 0: got {height!r}, '
            f'{width!r}.'
        )
    if height * width > max_pixels:
        raise DataError(
            f'{where} is {height} high and {width} wide: more than {max_pixels} pixels, the '
            'max_pixels of BoxPromptDataset.'
        )
    return height, width


def read_segmentation(
    segmentation: Any, size: Size, where: str, name: str, dropped: Dropped
) -> RLE | None:
    """The mask in original px of a COCO record: polygons, or an RLE of either kind.

    Args:
        segmentation: as in the file.
        size: (H, W) of the image.
        where: what a message calls the record.
        name: of the record, if it is left out.
        dropped: gets what is left out: parts of fewer than 3 points, masks without a pixel.

    Returns:
        Compressed RLE, None for a mask without a pixel.

    Raises:
        DataError: it is neither, or not for an image of this size.
    """
    rle = None
    if isinstance(segmentation, dict):
        if segmentation.get('size') != list(size):
            raise DataError(
                f'{where} has an RLE of size {segmentation.get("size")}, '
                f'its image has (height, width) {list(size)}.'
            )
        try:
            rle = checked_rle(segmentation.get('counts'), size)
        except ValueError as error:
            raise DataError(f"{where} has a wrong RLE: 'counts' {error}.") from error
    elif isinstance(segmentation, list):
        polygons = [checked_polygon(part, size, where) for part in segmentation]
        rle = rle_of_polygons(polygons, size, name, dropped)
    elif segmentation is not None:
        raise DataError(f"{where}: 'segmentation' must be polygons or an RLE.")
    return with_pixels(rle, name, dropped)


def with_pixels(rle: RLE | None, name: str, dropped: Dropped) -> RLE | None:
    """The mask of an object; None, and its name in ``dropped``, if it has no pixel."""
    if rle is None or mask_api.area(rle) == 0:
        dropped.setdefault(NO_PIXEL, []).append(name)
        return None
    return rle


def rle_of_polygons(
    polygons: Sequence[np.ndarray], size: Size, name: str, dropped: Dropped
) -> RLE | None:
    """The union of polygons that were checked; None if none of them has three points."""
    parts = [polygon.tolist() for polygon in polygons if len(polygon) >= 6]
    dropped.setdefault(TOO_FEW_POINTS, []).extend([name] * (len(polygons) - len(parts)))
    return mask_api.merge(mask_api.frPyObjects(parts, *size)) if parts else None


def checked_polygon(
    part: object, size: Size, where: str, unit: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """One polygon (2N,) float64 x, y, x, y, ... in original px, from whatever a file holds.

    Args:
        part: as in the file.
        size: (H, W) of the image.
        where: what a message calls the record.
        unit: width and height in px of the unit in which the file has its x and y.

    Raises:
        DataError: no list of finite x, y pairs, or a point that is far outside the image.
    """
    try:
        polygon = np.asarray(part, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f'{where} has a polygon that is no list of numbers.') from error
    if polygon.ndim != 1:
        raise DataError(f'{where}: a polygon must be a list x1, y1, x2, y2, ... of numbers.')
    if len(polygon) % 2:
        raise DataError(f'{where} has a polygon of {len(polygon)} numbers: expected x, y pairs.')
    polygon = polygon * (unit * (len(polygon) // 2))
    if not np.isfinite(polygon).all():
        raise DataError(f'{where} has a polygon with a coordinate that is not finite.')
    # A contour may leave the image a little; one that is far off is no contour, and large numbers
    # make pycocotools crash.
    height, width = size
    low, high = np.array([-width, -height]), np.array([2 * width, 2 * height])
    points = polygon.reshape(-1, 2)
    far = points[((points < low) | (points > high)).any(axis=1)]
    if len(far):
        raise DataError(
            f'{where} has a polygon point {tuple(far[0].tolist())} far outside its image, '
            f'which is {width} wide and {height} high.'
        )
    return polygon


def checked_points(
    points: object, size: Size, where: str, unit: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """As :func:`checked_polygon`, from a list of (x, y) pairs; (N, 2) float64."""
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise DataError(f"{where}: 'points' must be a list of [x, y] pairs.")
    flat = [value for point in points for value in point]
    return checked_polygon(flat, size, where, unit).reshape(-1, 2)


def ellipse_polygon(
    centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0
) -> np.ndarray:
    """An ellipse as a polygon (2N,) that is nowhere more than 0.05 px off.

    Args:
        centre: (x, y).
        radii: along x and y, before the rotation.
        degrees: rotation, clockwise as the image is seen.
    """
    number = max(12, int(np.ceil(np.pi * np.sqrt(10 * max(radii)))))  # r (1 - cos(pi / n)) < 0.05
    angles = np.arange(number) * (2 * np.pi / number)
    points = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    return (rotated(points, degrees) + centre).ravel()


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (N, 2) turned about (0, 0), clockwise as the image is seen."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return points @ np.array([[cosine, sine], [-sine, cosine]])
