"""Ways to train a config with less memory or time."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

from mmengine.config import Config
from torch import Tensor, nn

from mmsam.apis.embedding_cache_check import check_embedding_cache
from mmsam.errors import ConfigError
from mmsam.models import SAMSegmentor
from mmsam.models.sam.attention import RelativePositionAttention

from .training_step import Training

LORA_RANK = 16
"""Ranks of 4 to 16 are usual; the smaller ones take hardly less memory."""


@dataclass(frozen=True)
class Variant:
    """A way to train, or why it is none for the config.

    Args:
        name: for a table.
        training: None where there is no such way.
        why_not: a sentence, where ``training`` is None.
    """

    name: str
    training: Training | None
    why_not: str = ''


def variants_of(training: Training, model: SAMSegmentor) -> Iterator[Variant]:
    """The config as it is, and with an embedding cache, in bfloat16, with checkpointing, with LoRA.

    Args:
        training: of the config as it is.
        model: that it builds.
    """
    yield Variant('as configured', training)
    config = training.config
    is_frozen = 'image_encoder' in model.frozen
    yield from _cached(training)
    yield from _in_bfloat16(training)
    yield from _checkpointed(training, model, is_frozen)
    adapted = _with_encoder(config, frozen_stages=-1)
    adapted.model.frozen = [name for name in model.frozen if name != 'image_encoder']
    adapted.model.encoder_dtype = 'auto'
    yield Variant(
        f'LoRA of rank {LORA_RANK}',
        Training(adapted, change=partial(add_adapters, rank=LORA_RANK)),
    )


def _cached(training: Training) -> Iterator[Variant]:
    name = 'embedding cache'
    if training.is_cached:
        yield Variant('no embedding cache', Training(training.config))
        return
    config = deepcopy(training.config)
    config.embedding_cache = dict(folder='work_dirs/embeddings')
    try:
        check_embedding_cache(config)
    except ConfigError as error:
        yield Variant(name, None, str(error))
    else:
        yield Variant(name, Training(config, is_cached=True))


def _in_bfloat16(training: Training) -> Iterator[Variant]:
    name = 'bfloat16 (--amp)'
    wrapper = training.config.optim_wrapper.get('type', 'OptimWrapper')
    if str(wrapper).split('.')[-1] in ('BFloat16OptimWrapper', 'AmpOptimWrapper'):
        yield Variant(name, None, f'the config has mixed precision ({wrapper}).')
        return
    config = deepcopy(training.config)
    config.optim_wrapper.type = 'mmsam.BFloat16OptimWrapper'
    yield Variant(name, Training(config, training.is_cached))


def _checkpointed(training: Training, model: SAMSegmentor, is_frozen: bool) -> Iterator[Variant]:
    for with_cp in ('global', True):
        name = f'with_cp={with_cp!r}'
        if is_frozen:
            yield Variant(name, None, 'the image encoder is frozen and stores no activations.')
        elif model.image_encoder.with_cp == with_cp:
            yield Variant(name, None, 'the config has it.')
        else:
            yield Variant(name, Training(_with_encoder(training.config, with_cp=with_cp)))


def _with_encoder(config: Config, **options: object) -> Config:
    changed = deepcopy(config)
    changed.model.image_encoder.update(options)
    return changed


class LowRankAdapter(nn.Module):
    """A linear layer that does not train, and the product of two small ones that do.

    mmsam has no LoRA: this one is for the plan of who adds it.

    Source: Hu et al., LoRA (ICLR 2022), section 4.1.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.up(self.down(x))


def add_adapters(model: SAMSegmentor, rank: int) -> None:
    """Put an adapter on every qkv and proj of the image encoder, of which nothing else trains."""
    model.image_encoder.requires_grad_(False)
    attentions = [
        module
        for module in model.image_encoder.modules()
        if isinstance(module, RelativePositionAttention)
    ]
    for attention in attentions:
        for name in ('qkv', 'proj'):
            setattr(attention, name, LowRankAdapter(getattr(attention, name), rank))
