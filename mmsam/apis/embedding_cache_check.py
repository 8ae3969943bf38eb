"""Checks that the images of a config can be encoded ahead, where it asks for that."""

import inspect
from collections.abc import Iterator

from mmengine.config import Config

from mmsam.datasets.cached_pipeline import check_cacheable
from mmsam.errors import ConfigError
from mmsam.models import SAMSegmentor
from mmsam.registry import MODELS, TRANSFORMS

from .config_check import datasets_of

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def check_embedding_cache(config: Config) -> None:
    """Check ``embedding_cache``, and that the encoder is frozen and each image always the same.

    Args:
        config: that ``check_config`` has passed.

    Raises:
        ConfigError: no folder is given, the model has no frozen image encoder, or a pipeline
            changes images in more ways than can be kept.
    """
    cache = config.get('embedding_cache')
    if cache is None:
        return
    if not isinstance(cache, dict) or not isinstance(cache.get('folder'), str):
        raise ConfigError(
            "embedding_cache: expected dict(folder='work_dirs/embeddings'), or None for no cache, "
            f'got {cache!r}.'
        )
    model = config.model
    if MODELS.get(model['type']) is not SAMSegmentor:
        raise ConfigError(
            f'embedding_cache: expected a SAMSegmentor as model, got {model["type"]}; set '
            'embedding_cache=None.'
        )
    frozen = model.get('frozen', inspect.signature(SAMSegmentor).parameters['frozen'].default)
    if 'image_encoder' not in frozen:
        raise ConfigError(
            'embedding_cache: expected image_encoder in model.frozen, as embeddings change while '
            f'their encoder trains, got {tuple(frozen)}; set embedding_cache=None.'
        )
    for loader, pipeline in _pipelines(config):
        kinds = [TRANSFORMS.get(step['type']) for step in pipeline]
        try:
            check_cacheable(kinds)
        except ConfigError as error:
            raise ConfigError(f'{loader}: {error}') from None


def _pipelines(config: Config) -> Iterator[tuple[str, list[dict]]]:
    """Those of images that are encoded ahead, each with its loader."""
    for loader in _LOADERS:
        for dataset in datasets_of((config.get(loader) or {}).get('dataset')):
            predicts_tiles = dataset.get('tiling') is not None and dataset.get('test_mode')
            if 'pipeline' in dataset and not predicts_tiles:
                yield loader, dataset['pipeline']
