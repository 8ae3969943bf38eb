"""What an embedding cache takes on the disk."""

import math
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmsam.datasets import BoxPromptDataset
from mmsam.embedding_cache import ImageView
from mmsam.errors import DataError
from mmsam.models import SAMSegmentor
from mmsam.registry import DATASETS

_BYTES_OF_NUMBER = 2  # float16


@dataclass(frozen=True)
class StoredEmbeddings:
    """Embeddings of the images of training and validation.

    Attributes:
        bytes_each: of an embedding.
        number: of images, each counted as often as its pipeline turns or flips it in another way;
            None where the data are not there.
    """

    bytes_each: int
    number: int | None

    @classmethod
    def of(cls, config: Config, model: SAMSegmentor) -> 'StoredEmbeddings':
        return cls(math.prod(model.embedding_shape) * _BYTES_OF_NUMBER, _number_of_views(config))


def _number_of_views(config: Config) -> int | None:
    views: set[ImageView] = set()
    for loader in ('train_dataloader', 'val_dataloader'):
        settings = config.get(loader)
        if settings is None:
            continue
        try:
            with DefaultScope.overwrite_default_scope('mmsam'):
                dataset = DATASETS.build(settings.dataset)
        except DataError:
            return None
        if isinstance(dataset, BoxPromptDataset) and not dataset.predicts_tiles:
            views.update(view for of_sample in dataset.image_views() for view in of_sample)
    return len(views)
