"""What a config's training will take, and what would take less."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config

from mmsam.errors import ConfigError
from mmsam.options import check_whole_number

from .machine import memory_on_card
from .prediction import StepCost, TracedTraining
from .stored_embeddings import StoredEmbeddings
from .training_step import BatchSize, Training, training_transform
from .variants import Variant, variants_of

CARDS = (8.0, 12.0, 16.0, 24.0, 40.0, 80.0)
"""Memory of common GPUs, in GiB."""


@dataclass(frozen=True)
class PlannedVariant:
    """A variant, and what it takes.

    Attributes:
        parameters, trained_parameters: numbers of weights.
        step: of a batch as configured.
        embeddings: what its embedding cache takes on the disk; None without one.
        checkpoint_bytes: of a training checkpoint, with the optimizer's states.
        most_images: the largest batch for each card.
    """

    variant: Variant
    parameters: int
    trained_parameters: int
    step: StepCost
    embeddings: StoredEmbeddings | None
    checkpoint_bytes: int
    most_images: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Of a config.

    Attributes:
        batch: as configured.
        objects_from: what says how many objects an image has.
        image_size: side of the padded square, px.
        cards: memory of each card, GiB.
        planned: the variants that there are.
        left_out: those that there are not, with their reasons.
    """

    batch: BatchSize
    objects_from: str
    image_size: int
    cards: tuple[float, ...]
    planned: tuple[PlannedVariant, ...]
    left_out: tuple[Variant, ...]


def plan_training(
    config: Config, *, objects: int | None = None, cards: Sequence[float] = CARDS
) -> Plan:
    """Predict what a training takes, as configured and in each variant of it.

    Nothing is trained, and no data are needed.

    Args:
        config: as it would run.
        objects: of each image; None: as many as ``RandomObjects`` of the training's pipeline takes.
        cards: memory of GPUs, in GiB.

    Raises:
        ConfigError: the config trains no ``SAMSegmentor``, nothing says how many objects an
            image has, or a card has no memory.
    """
    if min(cards, default=1) <= 0:
        raise ConfigError(f'--memory: expected GiB above 0, got {min(cards):g}.')
    batch, objects_from = _batch_of(config, objects)
    configured = Training(config, is_cached=config.get('embedding_cache') is not None)
    model = TracedTraining(configured).model
    planned, left_out = [], []
    for variant in variants_of(configured, model):
        if variant.training is None:
            left_out.append(variant)
            continue
        traced = TracedTraining(variant.training)
        planned.append(
            PlannedVariant(
                variant,
                traced.parameters,
                traced.trained_parameters,
                traced.step(batch),
                StoredEmbeddings.of(config, model) if variant.training.is_cached else None,
                traced.checkpoint_bytes,
                tuple(traced.most_images(batch.objects, memory_on_card(card)) for card in cards),
            )
        )
    return Plan(
        batch, objects_from, model.image_size, tuple(cards), tuple(planned), tuple(left_out)
    )


def _batch_of(config: Config, objects: int | None) -> tuple[BatchSize, str]:
    loader = config.get('train_dataloader')
    if loader is None:
        raise ConfigError('plan.py: expected a config with train_dataloader, got none.')
    images = loader.get('batch_size', 1)
    if objects is not None:
        check_whole_number('--objects', objects, 1)
        return BatchSize(images, objects), '--objects'
    limit = training_transform(config, 'RandomObjects')
    if limit is None:
        raise ConfigError(
            'plan.py: no RandomObjects in the pipeline of train_dataloader says how many objects '
            'an image has at most: give the number with --objects.'
        )
    return BatchSize(images, limit['max_objects']), 'RandomObjects'
