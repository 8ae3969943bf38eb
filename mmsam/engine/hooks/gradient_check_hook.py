"""Ends a training whose loss does not reach what is meant to train."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from torch import Tensor, nn

from mmsam.checkpoint import show_keys
from mmsam.engine.model_parts import part_of, trained_parts, unwrapped
from mmsam.errors import ConfigError
from mmsam.registry import HOOKS

_ROUNDING = 1e-2
"""Share of the loss that a step as long as the weights themselves would change. Gradients that are
rounding errors were seen up to 2e-3 (``MSE(normalize(threshold(logits)))``), others from 60 on."""


class _Rank(NamedTuple):
    """What one rank saw in an iteration: gradient norms by name, of parameters that got one."""

    objects: int
    loss: float
    norms: dict[str, float]


@HOOKS.register_module()
class GradientCheckHook(Hook):
    """Check once, after the first backward pass with objects, that gradients arrive.

    A part of the model (``image_encoder``, ``mask_decoder``; a child of the model) with parameters
    that train must have a gradient that is not 0, in the batch of any rank; and the gradients of
    all parts together must be more than rounding errors. Inside a part that trains, parameters
    without a gradient are legal, such as the embeddings of points where boxes are the only prompts:
    they are logged once.

    Batches whose samples have ``gt_instances`` but no object in it are waited out. A resumed run is
    checked again.

    Raises:
        ConfigError: after the first iteration with objects, the same on all ranks.
    """

    def __init__(self) -> None:
        self._norms: dict[str, Tensor] = {}
        self._listeners: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Listen to the gradients of all parameters that train."""
        for name, parameter in unwrapped(runner.model).named_parameters():
            if parameter.requires_grad:
                listener = parameter.register_post_accumulate_grad_hook(
                    lambda parameter, name=name: self._note(name, parameter)
                )
                self._listeners.append(listener)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        """Judge what arrived on all ranks, unless none of them had an object."""
        if not self._listeners:
            return
        loss = outputs['loss'].item() if outputs and 'loss' in outputs else math.nan
        norms = {name: float(norm) for name, norm in self._norms.items()}
        self._norms.clear()
        ranks = all_gather_object(_Rank(_count_objects(data_batch), loss, norms))
        if not any(rank.objects for rank in ranks):
            return
        for listener in self._listeners:
            listener.remove()
        self._listeners.clear()
        _check(unwrapped(runner.model), ranks, runner)

    def after_train(self, runner: Runner) -> None:
        """Say so where no batch had an object."""
        if self._listeners:
            runner.logger.warning('Gradients were not checked: no batch had an object.')

    def _note(self, name: str, parameter: Tensor) -> None:
        # of this rank, before clipping: DDP averages later, and an update clears it
        assert parameter.grad is not None
        self._norms[name] = torch.linalg.vector_norm(parameter.grad.detach())


def _count_objects(data_batch: Any) -> int:
    """Objects of a batch; samples that do not list theirs count as one."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    if not samples:
        return 1
    return sum(len(s.gt_instances) if hasattr(s, 'gt_instances') else 1 for s in samples)


def _check(model: nn.Module, ranks: list[_Rank], runner: Runner) -> None:
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    reached = {name for rank in ranks for name, norm in rank.norms.items() if norm != 0}
    reached_parts = {part_of(name) for name in reached}
    where = f'after the first backward pass with objects (iteration {runner.iter + 1})'
    dead = [
        part
        for part, trains in trained_parts(model).items()
        if trains and part not in reached_parts
    ]
    if dead:
        raise ConfigError(
            f'Expected a gradient in each part that trains, but {" and ".join(dead)} got none '
            f'{where}: the loss does not depend on it, or does so only through an operation '
            'without a gradient (a threshold, normalize over an axis of length 1, detach, '
            'torch.no_grad), or it is saturated. What is not meant to train belongs into '
            'model.frozen.'
        )
    gradient = sum(math.hypot(*rank.norms.values()) for rank in ranks) / len(ranks)
    loss = sum(rank.loss for rank in ranks) / len(ranks)
    weights = torch.nn.utils.get_total_norm([p for p in model.parameters() if p.requires_grad])
    if gradient * float(weights) < _ROUNDING * loss:
        raise ConfigError(
            f'Expected a gradient from which {", ".join(sorted(reached_parts))} can learn, got one '
            f'of norm {gradient:.1g} at a loss of {loss:.3g} {where}, which are rounding errors: '
            'the loss applies an operation without a gradient to the logits (a threshold, '
            'normalize over an axis of length 1), or it is saturated.'
        )
    silent = [name for name in names if name not in reached]
    runner.logger.info(
        f'Gradients arrive in {", ".join(sorted(reached_parts))}'
        + (
            f'; {len(silent)} of {len(names)} parameters that train got none from this batch: '
            f'{show_keys(silent)}.'
            if silent
            else ', in each of their parameters.'
        )
    )
