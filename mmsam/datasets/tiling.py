"""Divides large images into overlapping tiles."""

from collections.abc import Iterator, Mapping

import numpy as np

from mmsam.errors import ConfigError
from mmsam.geometry import Size, Window
from mmsam.options import check_choice
from mmsam.structures.rle import mask_area

from .cropping import crop_objects, crop_rle

_KEYS = ('tile_size', 'overlap')


class Tiling:
    """Square tiles in rows and columns, which cover an image.

    Neighbours overlap by ``overlap``, the last ones of a row or column by more, so that they end
    with the image. An image that is smaller than a tile is one tile.

    Args:
        tile_size: side of a tile, original px.
        overlap: original px; objects that are not larger are whole in one tile at least.

    Raises:
        ConfigError: not 0 <= overlap < tile_size.
    """

    def __init__(self, tile_size: int = 1024, overlap: int = 256) -> None:
        if not (isinstance(tile_size, int) and isinstance(overlap, int)) or (
            not 0 <= overlap < tile_size
        ):
            raise ConfigError(
                'tiling expects whole numbers 0 <= overlap < tile_size, '
                f'got overlap={overlap!r} and tile_size={tile_size!r}.'
            )
        self.tile_size = tile_size
        self.overlap = overlap

    def size_in(self, size: Size) -> Size:
        """The size (H, W) of every tile of an image of ``size`` (H, W)."""
        return min(size[0], self.tile_size), min(size[1], self.tile_size)

    def windows(self, size: Size) -> list[Window]:
        """The tiles of an image of ``size`` (H, W), row by row."""
        height, width = self.size_in(size)
        return [
            Window(top, left, height, width)
            for top in self._starts(size[0])
            for left in self._starts(size[1])
        ]

    def _starts(self, side: int) -> list[int]:
        last = max(0, side - self.tile_size)
        return [*range(0, last, self.tile_size - self.overlap), last]


def build_tiling(options: object) -> Tiling:
    """The tiling that a config describes.

    Raises:
        ConfigError: no dict, an unknown key, a wrong value.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(f'tiling must be a dict, such as dict(tile_size=1024): got {options!r}.')
    for key in options:
        check_choice('key of tiling', key, _KEYS)
    return Tiling(**options)


def tile_samples(info: dict, tiling: Tiling) -> Iterator[dict]:
    """An image of a training as one sample for each tile, those without an object included.

    Every object is in a tile: one of which each tile has too little, see ``crop_objects``, is in
    the tile that has most of it.

    Args:
        info: what ``BoxPromptDataset`` hands to the pipeline, of the whole image.

    Yields:
        The same with the tile's objects in the tile's frame, and ``tile``, its ``Window``.
    """
    rles, boxes = info['rles'], info['boxes']
    windows = tiling.windows((info['height'], info['width']))
    crops = [crop_objects(rles, boxes, window) for window in windows]
    everywhere_little = set(range(len(rles))).difference(*(crop.kept.tolist() for crop in crops))
    always: list[list[int]] = [[] for _ in windows]
    for index in everywhere_little:
        areas = [mask_area(crop_rle(rles[index], window)) for window in windows]
        always[int(np.argmax(areas))].append(index)
    for window, objects, more in zip(windows, crops, always, strict=True):
        if more:
            objects = crop_objects(rles, boxes, window, more)
        yield {
            **info,
            'tile': window,
            'boxes': objects.boxes,
            'gt_boxes': objects.boxes.copy(),
            'labels': info['labels'][objects.kept],
            'rles': objects.rles,
            'names': [info['names'][index] for index in objects.kept],
        }
