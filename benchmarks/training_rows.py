"""Training of the whole image encoder, a forward and a backward pass: against segment_anything."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .decoder_rows import Gradients, autocast, gradient_error
from .memory import memory_ratio, step_memory
from .peers import our_sam, their_sam
from .rows import Measurement, Row, Scale
from .timing import interleaved

_ERROR = dict(max_error=0.05, error_of='relative, of the gradient')
_TIME = 'encoder_training_bf16_vs_segment_anything'
_MEMORY = 'encoder_training_bf16_memory_vs_segment_anything'
_CHECKPOINTED_TIME = 'encoder_training_bf16_checkpointed_vs_segment_anything'
_CHECKPOINTED_MEMORY = 'encoder_training_bf16_checkpointed_memory_vs_segment_anything'

ROWS = (
    Row(
        _TIME,
        'encoder forward and backward, bf16 vs fp32',
        required=2.5,
        needs_fast_bf16=True,
        **_ERROR,
    ),
    Row(
        _MEMORY,
        'memory of the encoder forward and backward, bf16 vs fp32',
        required=0.35,
        at_most=True,
    ),
    Row(
        _CHECKPOINTED_TIME,
        'encoder forward and backward, bf16 with checkpointing vs fp32',
        required=2.0,
        needs_fast_bf16=True,
        **_ERROR,
    ),
    Row(
        _CHECKPOINTED_MEMORY,
        'memory of the encoder forward and backward, bf16 with checkpointing vs fp32',
        required=0.16,
        at_most=True,
    ),
)

_SIDES = {_TIME: False, _CHECKPOINTED_TIME: True}
_MEMORY_SIDES = {_MEMORY: False, _CHECKPOINTED_MEMORY: True}
"""Whether our side recomputes activations."""


def measure(wanted: frozenset[str], scale: Scale) -> dict[str, Measurement]:
    """The rows of ``wanted``; times are of all threads only, for a pass takes a minute."""
    results = {}
    if names := [name for name in _SIDES if name in wanted]:
        sides = {'segment_anything': their_step(scale)}
        sides |= {name: our_step(scale, _SIDES[name]) for name in names}
        times = interleaved(sides, scale.rounds, with_cpu=False)
        theirs = times.outputs['segment_anything']
        for name in names:
            error = gradient_error(times.outputs[name], theirs)
            results[name] = times.ratio(name, 'segment_anything', error)
    if names := [name for name in _MEMORY_SIDES if name in wanted]:
        memory = step_memory(their_step, scale)
        for name in names:
            ours = step_memory(our_step, scale, _MEMORY_SIDES[name])
            results[name] = memory_ratio(ours, memory)
    return results


def our_step(scale: Scale, checkpointed: bool) -> Callable[[], Gradients]:
    """A pass in bfloat16; gives the encoder's gradients."""
    model = our_sam(scale, their_sam(scale).state_dict(), with_cp=checkpointed)
    return _step(model.image_encoder.train(), scale, bfloat16=True)


def their_step(scale: Scale) -> Callable[[], Gradients]:
    """A pass of segment_anything's encoder in float32; gives its gradients."""
    return _step(their_sam(scale).image_encoder.train(), scale, bfloat16=False)


def _step(encoder: nn.Module, scale: Scale, bfloat16: bool) -> Callable[[], Gradients]:
    images, weights = _inputs(scale)

    def step() -> Gradients:
        with autocast(bfloat16):
            embeddings = encoder(images)
        (embeddings.float() * weights).sum().backward()
        gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
        encoder.zero_grad(set_to_none=True)
        return gradients

    return step


def _inputs(scale: Scale) -> tuple[Tensor, Tensor]:
    """One image (1, 3, S, S) and the loss's weights (1, 256, S/16, S/16)."""
    generator = torch.Generator().manual_seed(0)
    side = scale.img_size // 16
    images = torch.randn(1, 3, scale.img_size, scale.img_size, generator=generator)
    return images, torch.randn(1, 256, side, side, generator=generator)
