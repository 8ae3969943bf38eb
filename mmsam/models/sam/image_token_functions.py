"""What the mask decoder computes with image tokens, forward and backward, block by block.

Each of the three functions goes through the prompts in blocks, so that what it computes on the way
stays in the processor's cache and takes no memory that grows with the prompts. For the backward
pass it keeps what took large matrix products; the rest is computed again there.

Prompts come in the order of their images. Image tokens are (P, N, C), one set for each prompt,
where ``counts`` is None; else (B, N, C), one for each image, shared by its prompts without a copy,
and ``counts`` are the numbers of prompts of the B images, sum P. Positional encodings get no
gradient. Under autocast all is computed in its type, but softmax, normalisation and the sums over
blocks in float32.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_BLOCK = 2**20
GPU_BLOCK = 2**24
"""Values of image tokens in a block: one prompt of SAM on a CPU, whose cache holds few arrays of
that size, and on other devices enough of them to keep these busy."""


def in_autocast_dtype(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the type of autocast, where it is on; else as they are."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]


def attend_to_image(
    rows: Tensor,
    constants: Tensor,
    image_tokens: Tensor,
    image_pe: Tensor,
    counts: Sequence[int] | None,
) -> Tensor:
    """Means of the image tokens, weighted by the softmax over the image of each row's scores.

    Args:
        rows: (P, R, C); the scores are ``rows · (image_tokens + image_pe) + constants``.
        constants: (P, R).
        image_tokens: (P or B, N, C), see the module.
        image_pe: (N, C).
        counts: see the module.

    Returns:
        (P, R, C).
    """
    rows, constants, image_tokens, image_pe = in_autocast_dtype(
        rows, constants, image_tokens, image_pe
    )
    with torch.autocast(rows.device.type, enabled=False):
        return _AttendToImage.apply(
            rows, constants, image_tokens, image_pe, counts, torch.is_grad_enabled()
        )


def update_image_tokens(
    rows: Tensor,
    constants: Tensor,
    values: Tensor,
    num_heads: int,
    image_tokens: Tensor,
    image_pe: Tensor,
    norm: torch.nn.LayerNorm,
    counts: Sequence[int] | None,
) -> Tensor:
    """Image tokens attend to the rows of their prompts, are added to the result and normalised.

    Args:
        rows: (P, H·T, C), scores as in ``attend_to_image``; the softmax is over the T rows of a
            head.
        constants: (P, H·T).
        values: (P, H·T, C); their weighted sum over all rows is added to an image token.
        num_heads: H.
        image_tokens: (P or B, N, C), see the module.
        image_pe: (N, C).
        norm: over the C channels.
        counts: see the module.

    Returns:
        (P, N, C), one set of image tokens for each prompt.
    """
    rows, constants, values, image_tokens, image_pe = in_autocast_dtype(
        rows, constants, values, image_tokens, image_pe
    )
    with torch.autocast(rows.device.type, enabled=False):
        return _UpdateImageTokens.apply(
            rows,
            constants,
            values,
            image_tokens,
            image_pe,
            *_at_least_float32(norm.weight, norm.bias),
            norm.eps,
            num_heads,
            counts,
            torch.is_grad_enabled(),
        )


def upscale_and_multiply(
    image_tokens: Tensor,
    hyper_in: Tensor,
    first: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    eps: float,
    second: tuple[Tensor, Tensor],
) -> Tensor:
    """Turn each image token into cells, twice, and multiply each cell with the rows of its prompt.

    Args:
        image_tokens: (P, N, C).
        hyper_in: (P, M, E).
        first: matrix (C, k·D) and bias (k·D): a token becomes k cells of D channels, which are
            normalised over D and go through GELU.
        norm: weight (D) and bias (D).
        eps: of the normalisation.
        second: matrix (D, l·E) and bias (l·E): a cell becomes l cells, which go through GELU.

    Returns:
        (P, M, N, k·l), the cells in the order of first and second cells.
    """
    image_tokens, hyper_in, *matrices = in_autocast_dtype(image_tokens, hyper_in, *first, *second)
    with torch.autocast(hyper_in.device.type, enabled=False):
        return _UpscaleAndMultiply.apply(
            image_tokens,
            hyper_in,
            *matrices,
            *_at_least_float32(*norm),
            eps,
            torch.is_grad_enabled(),
        )


class _AttendToImage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        constants: Tensor,
        image_tokens: Tensor,
        image_pe: Tensor,
        counts: Sequence[int] | None,
        keep: bool,
    ) -> Tensor:
        context = torch.empty_like(rows)
        weights = []
        for prompts, images in _blocks(len(rows), image_tokens, counts):
            tokens = image_tokens[images]
            scores = _scores(rows[prompts], constants[prompts], tokens + image_pe)
            weight = scores.softmax(-1)
            context[prompts] = _times_images(weight, tokens)
            if keep:
                weights.append(weight)
        ctx.save_for_backward(rows, image_tokens, image_pe, *weights)
        ctx.counts = counts
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, image_tokens, image_pe, *weights = ctx.saved_tensors
        d_rows, d_constants = torch.empty_like(rows), rows.new_empty(rows.shape[:2])
        d_tokens = _TokenGradient(image_tokens, ctx.counts) if ctx.needs_input_grad[2] else None
        blocks = _blocks(len(rows), image_tokens, ctx.counts)
        for weight, (prompts, images) in zip(weights, blocks, strict=True):
            tokens, d_context = image_tokens[images], grad[prompts]
            d_weight = _times_images(d_context, tokens.transpose(1, 2))
            d_scores = softmax_backward(d_weight, weight, -1)
            d_rows[prompts] = _times_images(d_scores, tokens + image_pe)
            d_constants[prompts] = d_scores.sum(-1)
            if d_tokens is not None:
                d_tokens.add(images, (weight, d_context), (d_scores, rows[prompts]))
        d_image = d_tokens.sum if d_tokens is not None else None
        return d_rows, d_constants, d_image, None, None, None


class _UpdateImageTokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        constants: Tensor,
        values: Tensor,
        image_tokens: Tensor,
        image_pe: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        num_heads: int,
        counts: Sequence[int] | None,
        keep: bool,
    ) -> Tensor:
        updated = image_tokens.new_empty(len(rows), *image_tokens.shape[1:])
        kept = []
        for prompts, images in _blocks(len(rows), image_tokens, counts):
            tokens = image_tokens[images]
            scores = _scores(rows[prompts], constants[prompts], tokens + image_pe)
            weight = scores.unflatten(1, (num_heads, -1)).softmax(2).flatten(1, 2)
            total = _with_attended(tokens, weight, values[prompts]).to(norm_weight.dtype)
            updated[prompts], *statistics = _layer_norm(total, norm_weight, norm_bias, eps)
            if keep:
                kept += [weight, *statistics]
        ctx.save_for_backward(rows, values, image_tokens, image_pe, norm_weight, norm_bias, *kept)
        ctx.num_heads, ctx.counts = num_heads, counts
        return updated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, values, image_tokens, image_pe, norm_weight, norm_bias, *kept = ctx.saved_tensors
        d_rows, d_constants = torch.empty_like(rows), rows.new_empty(rows.shape[:2])
        d_values = torch.empty_like(values)
        d_tokens = _TokenGradient(image_tokens, ctx.counts) if ctx.needs_input_grad[3] else None
        d_norm = _NormGradient(norm_weight, norm_bias)
        for index, (prompts, images) in enumerate(_blocks(len(rows), image_tokens, ctx.counts)):
            weight, *statistics = kept[3 * index : 3 * index + 3]
            tokens, value = image_tokens[images], values[prompts]
            total = _with_attended(tokens, weight, value).to(norm_weight.dtype)
            d_total = d_norm.add(grad[prompts].to(total.dtype), total, *statistics)
            d_attended = d_total.to(rows.dtype)
            d_values[prompts] = _times_images(weight, d_attended)
            d_weight = _times_images(value, d_attended.transpose(1, 2))
            per_head = (ctx.num_heads, -1)
            d_scores = softmax_backward(
                d_weight.unflatten(1, per_head), weight.unflatten(1, per_head), 2
            ).flatten(1, 2)
            d_rows[prompts] = _times_images(d_scores, tokens + image_pe)
            d_constants[prompts] = d_scores.sum(-1)
            if d_tokens is not None:
                d_tokens.add(images, (d_scores, rows[prompts]), own=d_attended)
        norms = d_norm.weight, d_norm.bias
        d_image = d_tokens.sum if d_tokens is not None else None
        return d_rows, d_constants, d_values, d_image, None, *norms, None, None, None, None


class _UpscaleAndMultiply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_tokens: Tensor,
        hyper_in: Tensor,
        first_matrix: Tensor,
        first_bias: Tensor,
        second_matrix: Tensor,
        second_bias: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        keep: bool,
    ) -> Tensor:
        num_prompts, length, _ = image_tokens.shape
        depth, last_depth = len(norm_weight), hyper_in.shape[2]
        cells = len(first_bias) // depth * len(second_bias) // last_depth
        masks = hyper_in.new_empty(num_prompts, hyper_in.shape[1], length, cells)
        kept = []
        for prompts, part in _parts(image_tokens):
            rows = hyper_in[prompts]
            tokens = image_tokens[prompts, part].flatten(0, 1)
            cell = torch.addmm(first_bias, tokens, first_matrix)
            if keep:
                kept.append(cell)
            cell = cell.view(-1, depth).to(norm_weight.dtype)
            x, *_ = _layer_norm(cell, norm_weight, norm_bias, eps)
            x = torch.addmm(second_bias, F.gelu(x).to(rows.dtype), second_matrix)
            x = F.gelu(x).view(len(rows), -1, last_depth)
            mask = _times_images(rows, x.transpose(1, 2))
            masks[prompts, :, part] = mask.unflatten(-1, (-1, cells))
        ctx.save_for_backward(
            image_tokens,
            hyper_in,
            first_matrix,
            second_matrix,
            second_bias,
            norm_weight,
            norm_bias,
            *kept,
        )
        ctx.eps = eps
        return masks

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image_tokens, hyper_in, first_matrix, second_matrix, second_bias, *kept = ctx.saved_tensors
        norm_weight, norm_bias, *kept = kept
        d_tokens, d_hyper_in = torch.empty_like(image_tokens), torch.zeros_like(hyper_in)
        d_first, d_second = _LinearGradient(first_matrix), _LinearGradient(second_matrix)
        d_norm = _NormGradient(norm_weight, norm_bias)
        for cell, (prompts, part) in zip(kept, _parts(image_tokens), strict=True):
            rows, tokens = hyper_in[prompts], image_tokens[prompts, part]
            cell = cell.view(-1, len(norm_weight)).to(norm_weight.dtype)
            normalized, *statistics = _layer_norm(cell, norm_weight, norm_bias, ctx.eps)
            x = F.gelu(normalized).to(rows.dtype)
            before = torch.addmm(second_bias, x, second_matrix)

            d_masks = grad[prompts, :, part].flatten(2)
            d_hyper_in[prompts] += _times_images(
                d_masks, F.gelu(before).view(len(rows), -1, rows.shape[2])
            )
            d_x = _sums_of_rows(d_masks, rows, len(rows)).view_as(before)
            d_x = d_second.add(_gelu_backward(d_x, before), x)
            d_x = _gelu_backward(d_x.to(normalized.dtype), normalized)
            d_x = d_norm.add(d_x, cell, *statistics).to(rows.dtype)
            d_x = d_first.add(d_x.view(-1, first_matrix.shape[1]), tokens.flatten(0, 1))
            d_tokens[prompts, part] = d_x.view_as(tokens)
        return (
            d_tokens,
            d_hyper_in,
            d_first.matrix,
            d_first.bias,
            d_second.matrix,
            d_second.bias,
            d_norm.weight,
            d_norm.bias,
            None,
            None,
        )


class _TokenGradient:
    """Gradient of image tokens, summed over the prompts that share them."""

    def __init__(self, image_tokens: Tensor, counts: Sequence[int] | None) -> None:
        self._is_shared = counts is not None
        if self._is_shared:
            (self.sum,) = _at_least_float32(torch.zeros_like(image_tokens))
        else:
            self.sum = torch.empty_like(image_tokens)

    def add(
        self, images: slice, *products: tuple[Tensor, Tensor], own: Tensor | None = None
    ) -> None:
        """Add ``own`` (p, N, C) and sums of rows (p, R, C) weighted with (p, R, N)."""
        if len(products) == 1:
            weights, rows = products[0]
        else:  # one long product writes the image tokens once
            weights, rows = (torch.cat(parts, dim=1) for parts in zip(*products, strict=True))
        part = self.sum[images]
        total = _sums_of_rows(weights, rows, len(part))
        if self._is_shared:
            part += total
            if own is not None:
                part += own.sum(0)
        elif own is not None:
            torch.add(total, own, out=part)
        else:
            part.copy_(total)


class _LinearGradient:
    """Gradient of a matrix and bias, summed over blocks."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        (self.matrix,) = _at_least_float32(torch.zeros_like(matrix))
        self.bias = torch.zeros_like(self.matrix[0])

    def add(self, grad: Tensor, x: Tensor) -> Tensor:
        """Add what the gradient of ``x @ matrix + bias`` brings; returns that of ``x``."""
        self.matrix += x.t() @ grad
        self.bias += grad.sum(0)
        return grad @ self._matrix.t()


class _NormGradient:
    """Gradient of a layer normalisation's weight and bias, summed over blocks."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._parameters = weight, bias
        self.weight, self.bias = torch.zeros_like(weight), torch.zeros_like(bias)

    def add(self, grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """Add what the gradient of the normalised ``x`` brings; returns that of ``x``."""
        d_x, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
            grad, x, self.weight.shape, mean, rstd, *self._parameters, [True, True, True]
        )
        self.weight += d_weight
        self.bias += d_bias
        return d_x


def _at_least_float32(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]


def _blocks(
    num_prompts: int, image_tokens: Tensor, counts: Sequence[int] | None
) -> Iterator[tuple[slice, slice]]:
    """Prompts of a block, all of one image if ``counts`` are given, and their image tokens."""
    size = max(_block_size(image_tokens) // image_tokens.shape[1:].numel(), 1)
    end = 0
    for image, count in enumerate([num_prompts] if counts is None else counts):
        start, end = end, end + count
        for first in range(start, end, size):
            prompts = slice(first, min(first + size, end))
            yield prompts, prompts if counts is None else slice(image, image + 1)


def _parts(image_tokens: Tensor) -> Iterator[tuple[slice, slice]]:
    """Prompts of a block and which of their image tokens, for what treats each token by itself.

    Of a prompt that fills a block, a quarter of the tokens at a time: they become larger.
    """
    length = image_tokens.shape[1]
    size = max(_block_size(image_tokens) // 4 // image_tokens.shape[2], 1)
    for prompts, _ in _blocks(len(image_tokens), image_tokens, None):
        if prompts.stop - prompts.start > 1:
            yield prompts, slice(0, length)
        else:
            for start in range(0, length, size):
                yield prompts, slice(start, min(start + size, length))


def _block_size(image_tokens: Tensor) -> int:
    return CPU_BLOCK if image_tokens.device.type == 'cpu' else GPU_BLOCK


def _times_images(rows: Tensor, images: Tensor) -> Tensor:
    """Rows (p, R, A) times images (q, A, Z), q = p or one for all: (p, R, Z)."""
    if len(images) == 1:  # faster than a batch of one matrix product
        return (rows.flatten(0, 1) @ images[0]).view(*rows.shape[:2], -1)
    return rows @ images


def _sums_of_rows(weights: Tensor, rows: Tensor, num_images: int) -> Tensor:
    """Rows (p, R, C) added up with weights (p, R, N), by prompt or over all: (p or 1, N, C)."""
    if num_images == 1:
        return (weights.flatten(0, 1).t() @ rows.flatten(0, 1))[None]
    return weights.transpose(1, 2) @ rows


def _scores(rows: Tensor, constants: Tensor, keys: Tensor) -> Tensor:
    """Scores (p, R, N) of rows (p, R, C) with keys (q, N, C)."""
    return _times_images(rows, keys.transpose(1, 2)).add_(constants[..., None])


def _with_attended(tokens: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Image tokens (q, N, C) plus values (p, R, C) weighted with (p, R, N): (p, N, C)."""
    if len(values) == 1:
        return torch.addmm(tokens[0], weights[0].t(), values[0])[None]
    return torch.baddbmm(tokens, weights.transpose(1, 2), values)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Sequence[Tensor]:
    """The normalised ``x``, means and reciprocals of the standard deviations."""
    return torch.native_layer_norm(x, weight.shape, weight, bias, eps)


def softmax_backward(grad: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Gradient of the scores from that of their softmax ``weights``, as autograd computes it."""
    return torch.ops.aten._softmax_backward_data(grad, weights, dim, weights.dtype)


def _gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of ``x`` from that of ``gelu(x)``, as autograd computes it."""
    return torch.ops.aten.gelu_backward(grad, x)
