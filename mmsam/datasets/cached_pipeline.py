"""A pipeline whose images are encoded already: it reads embeddings, and no image."""

from collections.abc import Callable, Sequence

import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from mmsam.embedding_cache import ImageEmbeddings, ImageView
from mmsam.errors import ConfigError
from mmsam.geometry import Orientation, Window

from .transforms import (
    DecodeObjectMasks,
    JitterBoxes,
    LoadSAMImage,
    PackSAMInputs,
    RandomObjects,
    RandomPromptedFlip,
    RandomPromptedRotate90,
    RandomPrompts,
    ResizeLongestSide,
)
from .transforms.loading import check_annotated_size, frame_of

_TURNING = (RandomPromptedFlip, RandomPromptedRotate90)

_CACHEABLE = (
    LoadSAMImage, RandomObjects, ResizeLongestSide, DecodeObjectMasks, *_TURNING, JitterBoxes,
    RandomPrompts, PackSAMInputs,
)  # fmt: skip
"""What leaves the image as it is, or makes one of few images of it."""


def check_cacheable(kinds: Sequence[type | Callable]) -> None:
    """Checks that the images of a pipeline can be encoded ahead.

    Args:
        kinds: classes of its transforms, in their order.

    Raises:
        ConfigError: one changes images in more ways than can be kept, or stands in the wrong place.
    """
    for kind in kinds:
        if kind not in _CACHEABLE:
            name = getattr(kind, '__name__', str(kind))
            allowed = ', '.join(allowed.__name__ for allowed in _CACHEABLE)
            raise ConfigError(
                f'embedding_cache: {name} may give an image other pixels each time, so that its '
                f'embedding cannot be kept; set embedding_cache=None, or leave {name} out of the '
                f'pipeline (expected {allowed}).'
            )
    places = [kind for kind in kinds if kind in (LoadSAMImage, ResizeLongestSide, *_TURNING)]
    resizing = places.count(ResizeLongestSide)
    if (
        places[:1] != [LoadSAMImage]
        or places.count(LoadSAMImage) > 1
        or resizing > 1
        or (resizing and places[1] is not ResizeLongestSide)
        or list(kinds[-1:]) != [PackSAMInputs]
    ):
        found = ', '.join(getattr(kind, '__name__', str(kind)) for kind in kinds) or 'none'
        raise ConfigError(
            'embedding_cache: expected a pipeline that starts with LoadSAMImage, resizes at most '
            f'once and before flips and turns, and ends with PackSAMInputs, got {found}.'
        )


class CacheablePipeline:
    """A pipeline, seen from its images.

    Args:
        transforms: built; they are not changed.

    Raises:
        ConfigError: see ``check_cacheable``.
    """

    def __init__(self, transforms: Sequence[Callable]) -> None:
        check_cacheable([type(transform) for transform in transforms])
        self._transforms = list(transforms)
        self._load = next(t for t in transforms if isinstance(t, LoadSAMImage))
        self._resize = next((t for t in transforms if isinstance(t, ResizeLongestSide)), None)

    def views(self, path: str, tile: Window | None) -> list[ImageView]:
        """All that a model may see of an image file, or of a tile of it."""
        ways = {Orientation()}
        for transform in self._transforms:
            if isinstance(transform, _TURNING):
                ways = {after for way in ways for after in transform.orientations(way)}
        return [self.view(path, tile, way) for way in sorted(ways)]

    def view(self, path: str, tile: Window | None, orientation: Orientation) -> ImageView:
        """One of these."""
        reading = self._load.reading
        value_range = reading.value_range
        return ImageView(
            path,
            value_range and (float(value_range[0]), float(value_range[1])),
            reading.frame,
            tile,
            self._resize and self._resize.image_size,
            orientation,
        )

    def upright_image(self, info: dict) -> Tensor:
        """The image (3, h, w) uint8 RGB, input px, before it is turned.

        Args:
            info: of a sample, as the pipeline gets it; it is changed.

        Raises:
            DataError: see ``LoadSAMImage``.
        """
        results = self._load(info)
        if self._resize is not None:
            results = self._resize(results)
        return torch.from_numpy(results['img']).permute(2, 0, 1).contiguous()

    def with_embeddings(self, embeddings: ImageEmbeddings) -> list[Callable]:
        """The transforms of the same pipeline with embeddings in place of images."""
        return [
            *(_WithoutImage(t) if t is self._load else t for t in self._transforms[:-1]),
            _ReadEmbedding(self, embeddings),
            self._transforms[-1],
        ]


class _WithoutImage(BaseTransform):
    """Sets what ``LoadSAMImage`` sets, but for ``img``; sizes are those of the annotation."""

    def __init__(self, load: LoadSAMImage) -> None:
        self._load = load

    def transform(self, results: dict) -> dict:
        size = frame_of(results)
        reading = self._load.reading_of(results)
        results.update(ori_shape=size, img_shape=size, image_reading=reading)
        return results


class _ReadEmbedding(BaseTransform):
    """Sets ``image_embeddings`` (C, S/16, S/16) float16 of the image as it lies.

    Raises:
        DataError: it cannot be read, or its image has another size than its annotation says.
    """

    def __init__(self, pipeline: CacheablePipeline, embeddings: ImageEmbeddings) -> None:
        self._pipeline = pipeline
        self._embeddings = embeddings

    def transform(self, results: dict) -> dict:
        orientation = results.get('orientation', Orientation())
        view = self._pipeline.view(results['img_path'], results.get('tile'), orientation)
        stored = self._embeddings.read(view)
        check_annotated_size(results, stored.original_size)
        results['image_embeddings'] = stored.embedding
        return results
