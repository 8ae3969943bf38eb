"""A model without its wrappers, and its parts: the first component of its parameters' names."""

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: Any) -> Any:
    """The model inside wrappers for distributed training."""
    while is_model_wrapper(model):
        model = model.module
    return model


def part_of(name: str) -> str:
    """The part to which a parameter, buffer or module belongs, such as ``mask_decoder``."""
    return name.partition('.')[0]


def trained_parts(model: nn.Module) -> dict[str, bool]:
    """Of each part that has parameters, whether any of them trains."""
    parts: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parts[part] = parts.get(part, False) or parameter.requires_grad
    return parts
