"""Ways to train a config with less memory or time."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

from mmengine.config import Config
from torch import Tensor, nn

from mmsam.models import SAMSegmentor
from mmsam.models.sam.attention import RelativePositionAttention

from .training_step import Training

LORA_RANK = 16
"""Ranks of 4 to 16 are usual; the smaller ones take hardly less memory."""

_WITHOUT_GRADIENT = 'the image encoder is frozen and stores no activations.'


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
    yield from _cached(training, is_frozen)
    yield from _in_bfloat16(training)
    yield from _checkpointed(training, model, is_frozen)
    frozen = [name for name in model.frozen if name != 'image_encoder']
    yield Variant(
        f'LoRA of rank {LORA_RANK}',
        Training(_with_model(config, frozen=frozen), change=partial(add_adapters, rank=LORA_RANK)),
    )


def _cached(training: Training, is_frozen: bool) -> Iterator[Variant]:
    name = 'embedding cache'
    if training.is_cached:
        yield Variant('no embedding cache', Training(training.config))
    elif not is_frozen:
        yield Variant(name, None, 'the image encoder trains, and embeddings change with it.')
    else:
        yield Variant(name, Training(training.config, is_cached=True))


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
    name = 'with_cp=True'
    if is_frozen:
        yield Variant(name, None, _WITHOUT_GRADIENT)
    elif model.image_encoder.with_cp is True:
        yield Variant(name, None, 'the config has it.')
    else:
        encoder = {**training.config.model.image_encoder, 'with_cp': True}
        yield Variant(name, Training(_with_model(training.config, image_encoder=encoder)))


def _with_model(config: Config, **options: object) -> Config:
    changed = deepcopy(config)
    changed.model.update(options)
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
