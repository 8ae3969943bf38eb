"""The mask decoder, forward and backward: against segment_anything, one image after the other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmsam.models.segmentors.prompt_batch import PromptBatch

from .memory import memory_ratio, step_memory
from .peers import our_sam, their_sam
from .rows import QUICK, Measurement, Row, Scale
from .timing import interleaved

COUNTS: Mapping[str, tuple[int, ...]] = {
    '1_prompt': (1,),
    '8_prompts': (8,),
    'ragged_12': (1, 2, 4, 5),
}
"""Prompts of each image of a batch."""

_TEXTS = {'1_prompt': '1 prompt', '8_prompts': '8 prompts', 'ragged_12': '12 prompts on 4 images'}
_REQUIRED = {'1_prompt': 1.8, '8_prompts': 2.0, 'ragged_12': 2.2}
_MEMORY = {
    'bf16': 'decoder_memory_bf16_vs_segment_anything',
    'fp32': 'decoder_memory_fp32_vs_segment_anything',
}

ROWS = (
    *(
        Row(
            f'decoder_fp32_{name}_vs_segment_anything',
            f'decoder forward and backward, fp32, {text}',
            required=_REQUIRED[name],
            max_error=1e-5,
            error_of='relative, of the gradient',
        )
        for name, text in _TEXTS.items()
    ),
    *(
        Row(
            f'decoder_bf16_{name}_vs_segment_anything',
            f'decoder forward and backward, bf16 vs fp32, {text}',
            required=2.8,
            needs_fast_bf16=True,
            max_error=0.15,  # segment_anything's own is off by 0.04 to 0.1 in bf16
            error_of='relative, of the gradient',
        )
        for name, text in _TEXTS.items()
    ),
    Row(
        _MEMORY['bf16'],
        'memory of the decoder forward and backward, bf16 vs fp32, 64 prompts',
        required=0.35,
        at_most=True,
    ),
    Row(
        _MEMORY['fp32'],
        'memory of the decoder forward and backward, fp32, 64 prompts',
        at_most=True,
    ),
)


def measure(wanted: frozenset[str], scale: Scale) -> dict[str, Measurement]:
    """The rows of ``wanted``."""
    results = {}
    for case, counts in COUNTS.items():
        names = {
            f'mmsam_{dtype}': f'decoder_{dtype}_{case}_vs_segment_anything'
            for dtype in ('fp32', 'bf16')
        }
        sides = {'segment_anything': their_step(scale, counts)}
        for side, name in names.items():
            if name in wanted:
                sides[side] = our_step(scale, counts, side == 'mmsam_bf16')
        if len(sides) == 1:
            continue
        times = interleaved(sides, scale.rounds)
        theirs = times.outputs['segment_anything']
        for side, name in names.items():
            if name in wanted:
                error = gradient_error(times.outputs[side], theirs)
                results[name] = times.ratio(side, 'segment_anything', error)
    if wanted & set(_MEMORY.values()):
        counts = (scale.crowd_memory,)
        theirs = step_memory(their_step, scale, counts)
        for dtype, name in _MEMORY.items():
            if name in wanted:
                ours = step_memory(our_step, scale, counts, dtype == 'bf16')
                results[name] = memory_ratio(ours, theirs)
    return results


Gradients = dict[str, Tensor]


def our_step(
    scale: Scale, counts: Sequence[int], bfloat16: bool = False
) -> Callable[[], Gradients]:
    """A forward and backward pass of all prompts in one call; gives the decoder's gradients."""
    scale = _without_encoder(scale)
    model = our_sam(scale, their_sam(scale).state_dict(), ('image_encoder', 'prompt_encoder'))
    embeddings, boxes, weights = _inputs(scale, counts)
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    def step() -> Gradients:
        with autocast(bfloat16):
            logits, qualities = model.decode(
                embeddings, PromptBatch.of_boxes(torch.cat(boxes), index)
            )
        loss = _loss(logits.float(), qualities.float(), torch.cat(weights))
        return _gradients(loss, model.mask_decoder)

    return step


def their_step(scale: Scale, counts: Sequence[int]) -> Callable[[], Gradients]:
    """As ``our_step``: segment_anything decodes the prompts of one image in a call."""
    sam = their_sam(_without_encoder(scale))
    embeddings, boxes, weights = _inputs(scale, counts)

    def step() -> Gradients:
        losses = []
        for number in range(len(counts)):
            with torch.no_grad():
                sparse, dense = sam.prompt_encoder(points=None, boxes=boxes[number], masks=None)
            logits, qualities = sam.mask_decoder(
                image_embeddings=embeddings[number : number + 1],
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            losses.append(_loss(logits, qualities, weights[number]))
        return _gradients(torch.stack(losses).sum(), sam.mask_decoder)

    return step


def _without_encoder(scale: Scale) -> Scale:
    """The same decoder behind a small image encoder, which nothing here uses."""
    return replace(scale, arch=QUICK.arch)


def autocast(bfloat16: bool) -> AbstractContextManager:
    """bfloat16 autocast on the CPU, or nothing."""
    return torch.autocast('cpu', torch.bfloat16) if bfloat16 else nullcontext()


def _inputs(scale: Scale, counts: Sequence[int]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Embeddings (B, 256, S/16, S/16), boxes and the loss's weights (P, 1, S/4, S/4) by image.

    Of another seed a hidden unit of a ReLU may be so near 0 that rounding switches it on in one
    model only, by which the gradients differ by 1e-3.
    """
    generator = torch.Generator().manual_seed(1)
    side = scale.img_size // 16
    embeddings = torch.randn(len(counts), 256, side, side, generator=generator)
    boxes, weights = [], []
    for count in counts:
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        boxes.append(corners.flatten(1) * scale.img_size)
        weights.append(torch.randn(count, 1, 4 * side, 4 * side, generator=generator))
    return embeddings, boxes, weights


def _loss(logits: Tensor, qualities: Tensor, weights: Tensor) -> Tensor:
    """A sum over prompts in which every logit counts."""
    return (logits * weights).sum() + qualities.sum()


def _gradients(loss: Tensor, decoder: nn.Module) -> Gradients:
    """Of the parameters that the loss depends on, by name; the parameters keep none."""
    named = dict(decoder.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    found = zip(named, gradients, strict=True)
    return {name: gradient for name, gradient in found if gradient is not None}


def gradient_error(ours: Gradients, theirs: Gradients) -> float:
    """The norm of the difference of two gradients, relative to that of the second.

    A parameter that only one of them has counts as 0 in the other.
    """
    nothing = torch.zeros(())
    names = ours.keys() | theirs.keys()
    difference = (ours.get(name, nothing) - theirs.get(name, nothing) for name in names)
    return _norm(difference) / _norm(theirs.values())


def _norm(tensors: Iterable[Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors) ** 0.5
