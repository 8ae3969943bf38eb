"""Optimizer wrappers and constructors of mmsam."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.runner import autocast
from torch import nn

from mmsam.errors import ConfigError
from mmsam.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS


def single_wrappers(optim_wrapper: OptimWrapper) -> list[OptimWrapper]:
    """The wrapper of each optimizer: one, or those of an ``OptimWrapperDict``."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return list(optim_wrapper.values())
    return [optim_wrapper]


def is_between_updates(optim_wrapper: OptimWrapper) -> bool:
    """Whether gradients are collected (``accumulative_counts``) that no update has used yet.

    They are in no checkpoint, and differ between the ranks.
    """
    return not all(wrapper.should_update() for wrapper in single_wrappers(optim_wrapper))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableParamsConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, leaving out what does not train.

    Frozen parameters would otherwise stand in the optimizer's groups and in every checkpoint's
    optimizer state.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        wrapper = super().__call__(model)
        groups = wrapper.optimizer.param_groups
        for group in groups:
            group['params'] = [p for p in group['params'] if p.requires_grad]
        groups[:] = [group for group in groups if group['params']]
        return wrapper


@OPTIM_WRAPPERS.register_module()
class SAMOptimWrapper(OptimWrapper):
    """mmengine's, but an update whose gradient is NaN or infinite is left out.

    One such update would make the weights, and Adam's averages, NaN for ever. In distributed
    training the gradients are averages, hence equal, and all ranks leave out the same updates.
    ``step_was_skipped`` says so of the latest iteration; ``DivergenceHook`` reports it.

    Args: as mmengine's ``OptimWrapper``.
    """

    step_was_skipped = False

    def update_params(self, *args: Any, **kwargs: Any) -> None:
        """As mmengine's: collect gradients, and update where it is time (``step``)."""
        self.step_was_skipped = False
        super().update_params(*args, **kwargs)

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Collect gradients.

        Raises:
            ConfigError: the loss depends on nothing that trains.
        """
        if not loss.requires_grad:
            raise ConfigError(
                f'The loss ({loss.item():.4g}) depends on nothing that trains: it was computed '
                'from masks instead of logits, behind detach or torch.no_grad, or all that it '
                'depends on is frozen.'
            )
        super().backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Clip the gradients, record ``train/grad_norm``, and update, or leave the update out."""
        params = [
            param
            for group in self.optimizer.param_groups
            for param in group['params']
            if param.grad is not None
        ]
        clipped = self.clip_func(params, **self.clip_grad_kwargs) if self.clip_grad_kwargs else None
        norm = clipped
        if norm is None:  # not clipped, or by value
            norm = torch.nn.utils.get_total_norm([param.grad for param in params])
        self.step_was_skipped = not math.isfinite(norm)
        if self.step_was_skipped:
            return
        if clipped is not None:
            self.message_hub.update_scalar('train/grad_norm', float(clipped))
        self.optimizer.step(**kwargs)


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(SAMOptimWrapper):
    """bfloat16 autocast on GPU and CPU.

    bfloat16 has float32's range, so no loss scaling is needed. mmengine's ``AmpOptimWrapper``
    refuses to run without a GPU and defaults to float16, in which SAM's large encoders overflow.

    Args: as mmengine's ``OptimWrapper``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        super().__init__(optimizer, accumulative_counts, clip_grad)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
