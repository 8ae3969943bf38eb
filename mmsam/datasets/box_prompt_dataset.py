"""The data set of images, objects and box prompts."""

import math
import os
import random
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from mmengine.dataset import BaseDataset, Compose
from torch import Tensor

from mmsam.embedding_cache import ImageEmbeddings, ImageView
from mmsam.errors import ConfigError, DataError, MMSAMError
from mmsam.image_file import MAX_PIXELS, MOST_PIXELS
from mmsam.options import check_choice, check_whole_number
from mmsam.registry import DATASETS, TRANSFORMS

from .box_format import check_box_format
from .cached_pipeline import CacheablePipeline
from .detected_boxes import read_detected_boxes
from .readers import AnnotatedImage, Objects, build_reader, first_few
from .readers.problems import one_record, remark
from .readers.rle import boxes_of_rles
from .readers.segmentations import Dropped
from .samplers import EpochIndex
from .splits import build_split
from .tiling import build_tiling, tile_samples

_DATA_PREFIX: Mapping = MappingProxyType({'img': 'images'})


@DATASETS.register_module()
class BoxPromptDataset(BaseDataset):
    """Images whose objects are prompted by their boxes.

    The pipeline gets a dict with

    - ``img_path`` str, ``img_id`` int or str, ``ann_path`` str, ``sample_idx`` int;
    - ``height``, ``width``: the image's size as the annotation says; ``max_pixels``;
    - ``boxes`` (K, 4) float32 xyxy, so far in original px, later in the frame of the image;
    - ``gt_boxes`` (K, 4) float32 xyxy, a copy that stays in original px;
    - ``labels`` (K,) int64; ``rles``: K masks in original px as compressed COCO RLE.

    With ``prompt_boxes``, ``boxes`` are the D boxes of a detector, with ``prompt_scores`` (D,)
    float32 and ``prompt_labels`` (D,) int64; ``gt_boxes``, ``labels`` and ``rles`` stay those of
    the K objects. In validation and test, an image of COCO with crowds has ``ignored_rles``, their
    N masks as ``rles``, and ``ignored_labels`` (N,) int64.

    All that is drawn at random in the pipeline, from ``random``, ``numpy.random`` or torch, is a
    function of (seed, epoch, index): neither the worker nor earlier samples change it. Seed and
    epoch come with the index from ``SeededInfiniteSampler``. With the plain index of another
    sampler the seed is the data set's own and the epoch is 0, which is what a validation wants
    and a training does not: each epoch would repeat the same augmentation.

    After ``use_embeddings`` samples have ``image_embeddings`` of a cache, and no image is read.

    Args:
        reader: ``type`` (one of ``readers.READERS``) and options of the reader.
        data_root: folder that relative paths belong to.
        data_prefix: ``dict(img=...)``, the folder of the images; ``images`` unless given.
        pipeline: transforms, built or as configs.
        empty_images: 'skip' or 'keep' images without an object. Kept, they have K = 0. To skip
            them the masks of a mask folder are all read at the start (and kept as RLE), otherwise
            each when it is needed.
        boxes_from: 'annotation' or 'mask'. An annotation's boxes are clipped to the image; are they
            written in another format than COCO's, they are refused. A mask folder has only boxes
            of masks.
        prompt_boxes: JSON file of COCO results, whose boxes are the prompts; for tests only. Images
            without an object are to be kept, for what is detected in them is wrong. What is
            detected in images of another part of ``split`` is left out.
        metainfo: ``dict(classes=(...))`` chooses the classes and their order; without it they are
            the annotation's.
        seed: >= 0, for samples whose index brings no seed.
        test_mode: True in validation and test.
        indices: the first n samples, or those of a list, as in mmengine's ``BaseDataset``.
        max_pixels: of the largest image that is read, at most 2**29; a guard against small files
            that fill the memory.
        split: the part of the images to take, ``dict(part='val', ratios=dict(train=0.8, val=0.2),
            group=None, seed=0)``, see ``Split``; None: all.
        tiling: ``dict(tile_size=1024, overlap=256)``, see ``Tiling``. In a training every tile is
            a sample, those without an object as ``empty_images`` says; the pipeline gets the tile's
            objects in its frame and ``tile``, which ``LoadSAMImage`` cuts out. In validation and
            test an image stays one sample, with ``tiles``, and the model goes through them. None:
            whole images.

    Raises:
        ConfigError: a wrong option, or no sample at all.
        DataError: files or records that are missing or wrong.
    """

    def __init__(
        self,
        reader: Mapping,
        data_root: str = '',
        data_prefix: Mapping = _DATA_PREFIX,
        pipeline: Sequence[Mapping | Callable] = (),
        empty_images: str = 'skip',
        boxes_from: str = 'annotation',
        prompt_boxes: str | None = None,
        metainfo: Mapping | None = None,
        seed: int = 0,
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        max_pixels: int = MAX_PIXELS,
        split: Mapping | None = None,
        tiling: Mapping | None = None,
    ) -> None:
        check_choice('empty_images', empty_images, ('skip', 'keep'))
        check_choice('boxes_from', boxes_from, ('annotation', 'mask'))
        for key in data_prefix:
            check_choice('key of data_prefix', key, ('img',))
        check_whole_number('seed of BoxPromptDataset', seed, 0)
        if prompt_boxes is not None and not (test_mode and empty_images == 'keep'):
            raise ConfigError(
                "prompt_boxes of BoxPromptDataset expects test_mode=True and empty_images='keep', "
                f'got test_mode={test_mode!r} and empty_images={empty_images!r}.'
            )
        if isinstance((metainfo or {}).get('classes'), str):
            raise ConfigError("metainfo['classes'] must be a sequence of names, got one text.")
        check_whole_number('max_pixels of BoxPromptDataset', max_pixels, 1)
        if max_pixels > MOST_PIXELS:
            raise ConfigError(
                f'max_pixels of BoxPromptDataset: expected at most {MOST_PIXELS}, the most that '
                f'pycocotools can encode, got {max_pixels}.'
            )
        self.max_pixels = max_pixels
        self.reader = build_reader(reader, data_root)
        self.reader.max_pixels = max_pixels
        self.split = None if split is None else build_split(split)
        self.tiling = None if tiling is None else build_tiling(tiling)
        self._reader_text = ', '.join(f'{key}={value!r}' for key, value in reader.items())
        self.empty_images = empty_images
        self.boxes_from = boxes_from
        self.prompt_boxes = prompt_boxes
        self.seed = seed
        self._told: set[str] = set()  # what was left out of a file, once it is logged
        super().__init__(
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=dict(data_prefix),
            indices=indices,
            # mmengine's own Compose looks names up under the default scope, which may be another.
            pipeline=[TRANSFORMS.build(t) if isinstance(t, Mapping) else t for t in pipeline],
            test_mode=test_mode,
        )

    def load_data_list(self) -> list[dict]:
        """Lists the images; called once by ``full_init``."""
        img_dir = Path(self.data_prefix['img'])
        classes, images = self.reader.read_images(img_dir, self._metainfo.get('classes'))
        self._metainfo['classes'] = classes
        if self.reader.category_ids is not None:
            self._metainfo['category_ids'] = self.reader.category_ids
        image_ids = [image.img_id for image in images]
        if self.split is not None:
            chosen = self.split.chosen([image.img_path for image in images], img_dir)
            images = [images[place] for place in chosen]
        images = self._with_files(images)
        if self.boxes_from == 'annotation':
            with one_record():
                check_box_format(images)
            remark(str(img_dir), {'boxes that leave their images cut off': _cut_off_boxes(images)})
        data_list: list[dict] = []
        has_tile_samples = self.tiling is not None and not self.test_mode
        must_read = self.empty_images == 'skip' or self.prompt_boxes or has_tile_samples
        empty = []
        left_out: Dropped = {}
        for image in images:
            with one_record():
                if image.objects is None and must_read:
                    image.objects = self.reader.read_objects(image)
                    for what, names in image.objects.left_out.items():
                        left_out.setdefault(what, []).extend(names)
                if image.objects is None:
                    data_list.append({'annotated_image': image, 'img_path': image.img_path})
                elif image.objects.rles or self.empty_images == 'keep':
                    info = self._annotation(image, image.objects)
                    data_list += self._tile_samples(info) if has_tile_samples else [info]
                else:
                    empty.append(image.img_path)
        if left_out:
            remark(os.path.dirname(images[0].ann_path), left_out)
        remark(str(img_dir), {'images without an object left out': empty})
        if self.prompt_boxes is not None:
            self._prompt_with_detected(data_list, image_ids)
        if not data_list:
            what = f'has an object of {first_few(classes)}'
            reason = f'none of the {len(images)} images {what}' if images else 'it lists no image'
            raise ConfigError(
                f'Expected at least one sample in {img_dir} with the reader {self._reader_text}, '
                f'got 0: {reason}.'
            )
        self._check_indices(len(data_list))
        return data_list

    def _check_indices(self, number: int) -> None:
        if not isinstance(self._indices, Sequence):
            return
        outside = [index for index in self._indices if not -number <= index < number]
        if outside:
            raise ConfigError(
                f'indices of BoxPromptDataset: there are {number} samples, from 0 to {number - 1}, '
                f'got {first_few(outside)}.'
            )

    def _prompt_with_detected(self, data_list: list[dict], image_ids: Sequence[int | str]) -> None:
        """Replace the boxes by those of ``prompt_boxes``, which may know more images."""
        ids = self._metainfo.get('category_ids') or range(1, len(self._metainfo['classes']) + 1)
        detected = read_detected_boxes(
            Path(self.prompt_boxes or ''),
            dict.fromkeys(image_ids)
            | {info['img_id']: (info['height'], info['width']) for info in data_list},
            {category_id: label for label, category_id in enumerate(ids)},
        )
        for info in data_list:
            found = detected[info['img_id']]
            info.update(boxes=found.boxes, prompt_scores=found.scores, prompt_labels=found.labels)

    def _with_files(self, images: list[AnnotatedImage]) -> list[AnnotatedImage]:
        found, missing = [], []
        for image in images:
            if os.path.isfile(image.img_path):
                found.append(image)
            else:
                missing.append(image.img_path)
        with one_record():
            if missing:
                raise DataError(
                    f'{len(missing)} of {len(images)} image files are missing: '
                    f'{first_few(missing)}; check data_root and data_prefix.'
                )
        return found

    def _tile_samples(self, info: dict) -> list[dict]:
        assert self.tiling is not None
        samples = tile_samples(info, self.tiling)
        return [tile for tile in samples if tile['rles'] or self.empty_images == 'keep']

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline gets for sample ``idx``, see the class; and for messages ``names``.

        The names are those of the K objects, such as ``annotation 12``.
        """
        info = super().get_data_info(idx)
        image = info.pop('annotated_image', None)
        if image is not None:
            objects = self.reader.read_objects(image)
            remark(os.path.dirname(image.ann_path), objects.left_out, self._told)
            info.update(self._annotation(image, objects))
        return info

    def image_paths(self) -> Iterator[str]:
        """The image file of each sample; no mask is read for it."""
        for index in range(len(self)):
            yield super().get_data_info(index)['img_path']

    @property
    def predicts_tiles(self) -> bool:
        """Whether the model cuts the images into tiles itself, and encodes those."""
        return self.tiling is not None and self.test_mode

    @cached_property
    def _cacheable(self) -> CacheablePipeline:
        """The pipeline as it was built; ``use_embeddings`` replaces it."""
        return CacheablePipeline(self.pipeline.transforms)

    def image_views(self) -> Iterator[list[ImageView]]:
        """Of each sample, all that the pipeline may make of its image; no mask is read for it.

        Raises:
            ConfigError: the pipeline makes too much of it, see ``check_cacheable``.
        """
        pipeline = self._cacheable
        for index in range(len(self)):
            info = super().get_data_info(index)
            yield pipeline.views(info['img_path'], info.get('tile'))

    def upright_image(self, idx: int) -> tuple[Tensor, tuple[int, int]]:
        """The image of sample ``idx`` (3, h, w) uint8 RGB, input px, before it is turned.

        And the size (H, W) of its file.

        Raises:
            DataError: as ``prepare_data``.
        """
        info = self.get_data_info(idx)
        size = info['height'], info['width']
        with _named_errors(info):
            return self._cacheable.upright_image(info), size

    def use_embeddings(self, embeddings: ImageEmbeddings) -> None:
        """From now on samples have ``image_embeddings`` and no image is read.

        All that is drawn at random stays what it was.

        Args:
            embeddings: of all ``image_views``.
        """
        self.pipeline = Compose(self._cacheable.with_embeddings(embeddings))

    def prepare_data(self, idx: int) -> dict:
        """The sample ``idx`` after the pipeline, under its own random state.

        Raises:
            DataError: a wrong or missing file, or whatever a transform raised; it names the image.
        """
        info = self.get_data_info(idx)
        del info['names']  # transforms that leave objects out need not know of them
        seed, epoch = self.seed, 0
        if isinstance(idx, EpochIndex):
            seed, epoch = idx.seed, idx.epoch
        elif not self.test_mode:
            warnings.warn(
                'Training samples are drawn without an epoch, so that every epoch has the same '
                "augmentation: use sampler=dict(type='SeededInfiniteSampler').",
                stacklevel=3,
            )
        path = info['img_path']
        with _random_state(seed, epoch, info['sample_idx']), _named_errors(info):
            results = self.pipeline(info)
        if results is None:
            # mmengine would draw another sample, which no seed governs.
            raise DataError(f'The pipeline returned no sample for image {path}.')
        return results

    def _annotation(self, image: AnnotatedImage, objects: Objects) -> dict:
        boxes = self._boxes(image, objects)
        info = {
            'img_path': image.img_path,
            'img_id': image.img_id,
            'ann_path': image.ann_path,
            'height': objects.size[0],
            'width': objects.size[1],
            'max_pixels': self.max_pixels,
            'boxes': boxes,
            'gt_boxes': boxes.copy(),
            'labels': np.array(objects.labels, dtype=np.int64),
            'rles': objects.rles,
            'names': objects.names,
        }
        if self.tiling is not None and self.test_mode:
            info['tiles'] = self.tiling.windows(objects.size)
        if objects.ignored_rles and self.test_mode:
            info['ignored_rles'] = objects.ignored_rles
            info['ignored_labels'] = np.array(objects.ignored_labels, dtype=np.int64)
        return info

    def _boxes(self, image: AnnotatedImage, objects: Objects) -> np.ndarray:
        if self.boxes_from == 'mask' or objects.boxes is None or not objects.boxes:
            return boxes_of_rles(objects.rles)
        height, width = objects.size
        numbers = [(math.nan,) * 4 if box is None else box for box in objects.boxes]
        boxes = np.array(numbers, dtype=np.float64)
        clipped = boxes.clip(0, [width, height, width, height]).astype(np.float32)
        good = np.isfinite(boxes).all(axis=1) & (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
        for index in np.flatnonzero(~good):
            with one_record():
                raise _box_error(image, objects, int(index))
        return clipped


def _box_error(image: AnnotatedImage, objects: Objects, index: int) -> DataError:
    name, box = objects.names[index], objects.boxes[index]  # type: ignore[index]
    if box is None:
        return DataError(
            f'In {image.ann_path}, {name} of image {image.img_path} has no box of four '
            "numbers; boxes_from='mask' takes the boxes of the masks."
        )
    height, width = objects.size
    return DataError(
        f'In {image.ann_path}, the box of {name} of image '
        f'{image.img_path} ({width} wide, {height} high) is xyxy '
        f'{box}: expected finite x1 < x2 and y1 < y2, at least '
        'partly inside the image.'
    )


def _cut_off_boxes(images: Sequence[AnnotatedImage]) -> list[str]:
    """Names of the objects whose boxes lie in part, by more than 1 px, outside their images."""
    names = []
    for image in images:
        if image.objects is None or not image.objects.boxes:
            continue
        height, width = image.objects.size
        for name, box in zip(image.objects.names, image.objects.boxes, strict=True):
            if box is None:
                continue
            x1, y1, x2, y2 = box
            inside = x1 < min(x2, width) and y1 < min(y2, height) and x2 > 0 and y2 > 0
            if inside and max(-x1, -y1, x2 - width, y2 - height) > 1:
                names.append(f'{name} of {image.img_path}')
    return names


@contextmanager
def _named_errors(info: dict) -> Iterator[None]:
    """Says of which sample an error is that a transform raises."""
    # the pipeline may change info
    path, img_id, ann_path = info['img_path'], info['img_id'], info['ann_path']
    try:
        yield
    except MMSAMError:
        raise
    except Exception as error:  # a transform may raise anything
        line = traceback.extract_tb(error.__traceback__)[-1]
        words = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise DataError(
            f'Image {path} (id {img_id}, annotation {ann_path}) failed in the pipeline: '
            f'{words} ({line.filename}:{line.lineno}); --debug shows the way there.'
        ) from error


@contextmanager
def _random_state(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seeds all global CPU generators from the three numbers; restores them at the end."""
    words = np.random.SeedSequence([seed, epoch, index]).generate_state(4)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch_state = torch.get_rng_state()
    try:
        np.random.seed(words)
        random.seed(words.tobytes())
        # torch.manual_seed would reset the generators of the GPUs as well.
        torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
