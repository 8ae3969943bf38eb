"""A data set and a small SAM whose embeddings a test has computed, without a whole run."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from mmengine.registry import DefaultScope
from tiny_sam import build_segmentor
from torch import Tensor
from torch.utils.data import DataLoader

from mmsam.datasets import BoxPromptDataset
from mmsam.engine.embedding_build import use_embeddings
from mmsam.models import SAMSegmentor

IMG_SIZE = 64

FLIPS = (
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='RandomPromptedFlip', prob=0.5, direction='vertical'),
)
TURNS = (dict(type='RandomPromptedRotate90'),)


def dataset(
    root: Path, turning: Sequence[dict] = FLIPS[:1], split: str = 'train', **options: Any
) -> BoxPromptDataset:
    """Of ``tiny_run.write_dataset``'s folder, with a pipeline of a training.

    Args:
        root: that folder.
        turning: transforms behind the masks.
        split: part of the data.
        options: of ``BoxPromptDataset``.
    """
    pipeline = [
        dict(type='LoadSAMImage'),
        dict(type='RandomObjects', max_objects=1),
        dict(type='ResizeLongestSide', image_size=IMG_SIZE),
        dict(type='DecodeObjectMasks'),
        *turning,
        dict(type='JitterBoxes'),
        dict(type='RandomPrompts', box=1, point=1, mask=1),
        dict(type='PackSAMInputs'),
    ]
    with DefaultScope.overwrite_default_scope('mmsam'):
        return BoxPromptDataset(
            data_root=str(root),
            reader=dict(type='coco', ann_file=f'annotations_{split}.json'),
            **{'pipeline': pipeline, **options},
        )


class Build:
    """What takes the place of a runner for ``use_embeddings``.

    Args:
        folder: of the caches.
        model: with a frozen encoder; a small one unless given.
        rank, world_size: of this process.
    """

    def __init__(
        self, folder: Path, model: SAMSegmentor | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.folder = folder
        self.model = model or same_segmentor()
        self.lines: list[str] = []
        self.signs = 0
        logger = logging.getLogger('cached_run')
        logger.info = self.lines.append  # type: ignore[method-assign, assignment]
        self._runner = SimpleNamespace(
            model=self.model, rank=rank, world_size=world_size, logger=logger, call_hook=self._sign
        )

    def _sign(self, name: str, batches: int) -> None:
        assert name == 'after_embeddings'
        self.signs += 1

    def use(self, *datasets: Any, num_workers: int = 0) -> int:
        """Have the data sets use embeddings; how many images were encoded for that."""
        loaders = {
            f'{number}_dataloader': DataLoader(one, num_workers=num_workers)
            for number, one in enumerate(datasets)
        }
        with encoded_images() as encoded:
            use_embeddings(self._runner, self.folder, loaders)  # type: ignore[arg-type]
        return len(encoded)


def same_segmentor() -> SAMSegmentor:
    """A small one that has the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_segmentor(IMG_SIZE)


@contextmanager
def encoded_images() -> Iterator[list[Tensor]]:
    """The images (3, S, S) that any segmentor encodes meanwhile."""
    encode = SAMSegmentor.encode_images
    encoded: list[Tensor] = []

    def noted(self: SAMSegmentor, inputs: Tensor) -> Tensor:
        encoded.extend(inputs)
        return encode(self, inputs)

    with mock.patch.object(SAMSegmentor, 'encode_images', noted):
        yield encoded


def entries(folder: Path) -> list[Path]:
    """The files of all embeddings below a folder."""
    return sorted(folder.glob('*/*.safetensors'))
