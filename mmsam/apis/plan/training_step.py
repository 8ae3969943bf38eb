"""One training step of a config, on tensors with or without memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from mmsam.apis.config_check import datasets_of
from mmsam.engine.optim_wrappers import single_wrappers
from mmsam.errors import ConfigError
from mmsam.models import SAMSegmentor
from mmsam.prompt_sampling import PromptKind
from mmsam.registry import MODELS, TRANSFORMS
from mmsam.structures import SAMDataSample


class BatchSize(NamedTuple):
    """What a step trains on: images, and objects of each."""

    images: int
    objects: int


@dataclass(frozen=True)
class Training:
    """What trains, and on what.

    Args:
        config: as it would run.
        is_cached: image embeddings come from a cache.
        change: what is done to the model before its optimizer is built, such as adapters; with
            multiprocessing it has to be importable by its name.
    """

    config: Config
    is_cached: bool = False
    change: Callable[[SAMSegmentor], None] | None = None


def build_model(training: Training) -> SAMSegmentor:
    """The model with its loss.

    Raises:
        ConfigError: it is no ``SAMSegmentor``, or has no ``MaskLossHook``.
    """
    config = training.config
    with _scope_of(config):
        name = config.model['type']
        if MODELS.get(name) is not SAMSegmentor:
            raise ConfigError(
                f'plan.py: expected a config whose model is a SAMSegmentor, got {name}.'
            )
        settings = deepcopy(config.model)
        settings.image_encoder.compile_blocks = False  # memory is about the same
        model: SAMSegmentor = MODELS.build(settings)
        model.mask_loss = MODELS.build(_loss_of(config))
    if training.change is not None:
        training.change(model)
    return model.train()


def build_optimizer(training: Training, model: SAMSegmentor) -> OptimWrapper:
    """The optimizer after an update, in the state that it has for the rest of the run."""
    with _scope_of(training.config):
        wrapper = build_optim_wrapper(model, deepcopy(training.config.optim_wrapper))
    for one in single_wrappers(wrapper):
        for group in one.optimizer.param_groups:
            for parameter in group['params']:
                parameter.grad = torch.zeros_like(parameter)
        one.optimizer.step()
        if one._accumulative_counts == 1:
            one.optimizer.zero_grad()
    return wrapper


@contextmanager
def _scope_of(config: Config) -> Iterator[None]:
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmsam')):
        yield


def _loss_of(config: Config) -> dict:
    for hook in config.get('custom_hooks') or ():
        if str(hook.get('type')).split('.')[-1] == 'MaskLossHook':
            return deepcopy(hook['loss'])
    raise ConfigError("custom_hooks: expected dict(type='MaskLossHook', loss=dict(...)), got none.")


def make_batch(training: Training, model: SAMSegmentor, size: BatchSize) -> dict[str, Any]:
    """A collated batch of square images as large as the model takes, with prompts as configured.

    An object is a quarter of its image. The kinds of first prompts stand in the proportions of
    ``RandomPrompts``, each that occurs at all at least once if there are enough objects.
    """
    side = model.image_size
    kinds = _kinds_of_prompts(training.config, size)
    inputs: list[Tensor] = []
    samples = []
    for index in range(size.images):
        inputs.append(torch.zeros(3, side, side, dtype=torch.uint8))
        sample = SAMDataSample(
            metainfo=dict(img_path=f'image {index}', img_shape=(side, side), ori_shape=(side, side))
        )
        own = kinds[index :: size.images]
        boxes = torch.tensor([[0.0, 0.0, side / 2, side / 2]]).repeat(size.objects, 1)
        prompts = InstanceData(boxes=boxes, seeds=torch.arange(size.objects))
        if kinds:
            prompts.kinds = torch.tensor(own)
            prompts.points = torch.full((size.objects, 1, 2), side / 4)
        if PromptKind.MASK in kinds:
            prompts.masks = torch.zeros(size.objects, side // 4, side // 4)
        sample.prompts = prompts
        masks = torch.zeros(size.objects, side, side, dtype=torch.uint8)
        masks[:, : side // 2, : side // 2] = 1
        sample.gt_instances = InstanceData(
            labels=torch.zeros(size.objects, dtype=torch.int64), masks=masks
        )
        samples.append(sample)
    if training.is_cached:
        shape = model.embedding_shape
        embeddings = [torch.zeros(shape, dtype=torch.float16) for _ in samples]
        return dict(image_embeddings=embeddings, data_samples=samples)
    return dict(inputs=inputs, data_samples=samples)


def _kinds_of_prompts(config: Config, size: BatchSize) -> list[int]:
    """The kind of the first prompt of each object of a batch; none where all are boxes."""
    step = training_transform(config, 'RandomPrompts')
    if step is None:
        return []
    proportions = TRANSFORMS.build({**step, 'type': 'mmsam.RandomPrompts'}).proportions
    number = size.images * size.objects
    kinds = [kind for kind, share in enumerate(proportions) if share > 0][:number]
    while len(kinds) < number:  # the kind that is farthest below its share
        counts = [kinds.count(kind) for kind in range(len(proportions))]
        lacks = [share * (len(kinds) + 1) - n for share, n in zip(proportions, counts, strict=True)]
        kinds.append(lacks.index(max(lacks)))
    return kinds


def training_transform(config: Config, name: str) -> dict | None:
    """The step of the training's pipeline with the name, if there is one."""
    for dataset in datasets_of((config.get('train_dataloader') or {}).get('dataset')):
        for step in dataset.get('pipeline') or ():
            if str(step.get('type')).split('.')[-1] == name:
                return step
    return None
