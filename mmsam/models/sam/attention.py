"""SAM's attentions, computed so that no large intermediate has to be kept.

``RelativePositionAttention`` is the image encoder's; ``TokenImageAttention`` is the mask
decoder's, between a few tokens and the thousands of tokens of an image.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .image_token_functions import attend_to_image, softmax_backward, update_image_tokens

_HAS_AMX = torch.cpu._is_amx_tile_supported()

_SCORES_AT_ONCE = 2**20
"""Scores that a thread computes at once on a CPU: 4 MiB in float32 stay in its caches. Of 64²
tokens these are 256 queries of one head."""


def resize_rel_pos(rel_pos: Tensor, length: int) -> Tensor:
    """Resample a table of relative positions (L, C) linearly to (length, C).

    Source: segment_anything/modeling/image_encoder.py @ 6fdee8f, ``get_rel_pos``.
    """
    if rel_pos.shape[0] == length:
        return rel_pos
    resized = F.interpolate(rel_pos.float().t()[None], size=length, mode='linear')
    return resized[0].t().to(rel_pos.dtype)


class RelativePositionAttention(BaseModule):
    """Multi-head self-attention with decomposed relative positions, in windows or over the map.

    The score of the query at (y, x) and the key at (v, u) is ``s·q·k + q·Rh[y-v] + q·Rw[x-u]``.
    Upstream builds the last two terms, the bias, for all (HW)² pairs. Two ways need less:

    - ``_attend_folded``, on accelerators: the query becomes
      ``[s·q, q·Rh[y-0..], q·Rw[x-0..]]``, the key ``[k, onehot(v), onehot(u)]``, and plain
      attention without a bias has the same scores, forward and backward.
    - ``_AttentionByChunks``, on CPUs: the scores of a few queries at a time, with their bias, stay
      in the caches, and are computed again for the backward pass. The products are as long as
      ``k``, not three times as long, and only ``qkv`` is kept.

    Windows at the right and bottom edge are filled up with tokens that are zero in upstream, so
    their keys and values are ``qkv(0)``. Weights were trained with them, so they take part; but
    only the map and a single zero go through ``qkv``, and only the map through ``proj``.

    Source: segment_anything/modeling/image_encoder.py @ 6fdee8f, ``Attention`` (parameters and
    result; the computation is ours).

    Args:
        dim: channels C, a multiple of ``num_heads``.
        num_heads: number of heads.
        input_size: (h, w) of the map, which sizes the tables of relative positions; another size at
            run time resamples them.
        window_size: side of the windows, which then sizes the tables; 0: no windows.
    """

    def __init__(
        self, dim: int, num_heads: int, input_size: tuple[int, int], window_size: int = 0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        head_dim = dim // num_heads
        height, width = (window_size, window_size) if window_size else input_size
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, head_dim))
        self._constants: dict[Callable[..., Any], tuple[tuple, Any]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h, w, C)."""
        batch, height, width, dim = x.shape
        x = x.flatten(1, 2)
        if not self.window_size:
            out = self._attend(self.qkv(x), (height, width))
        else:
            window = (self.window_size, self.window_size)
            tokens, places = self._constant(window_indices, (height, width), window, x.device)
            qkv = self.qkv(torch.cat([x, x.new_zeros(batch, 1, dim)], dim=1))
            windows = qkv.index_select(1, tokens).view(-1, window[0] * window[1], 3 * dim)
            out = self._attend(windows, window).view(batch, -1, dim).index_select(1, places)
        return self.proj(out).view(batch, height, width, dim)

    def _attend(self, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        """Attention in each of G windows or maps of ``size``, (G, h·w, 3·C) to (G, h·w, C)."""
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        rel_h = _relative_table(self.rel_pos_h, size[0]).to(qkv.dtype)
        rel_w = _relative_table(self.rel_pos_w, size[1]).to(qkv.dtype)
        if attends_by_chunks(qkv):
            with torch.autocast('cpu', enabled=False):  # it would let softmax return float32
                out = _AttentionByChunks.apply(qkv, rel_h, rel_w, self.scale)
        else:
            out = self._attend_folded(qkv, rel_h, rel_w)
        return out.flatten(2)

    def _attend_folded(self, qkv: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
        """Attention with the bias as part of query and key.

        Args:
            qkv: (G, h·w, 3, heads, d).
            rel_h, rel_w: (h, d, h) and (w, d, w), see ``_relative_table``.

        Returns:
            (G, h·w, heads, d).
        """
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias_h, bias_w = _biases(q, rel_h, rel_w)
        size, head_dim = (len(rel_h), len(rel_w)), q.shape[-1]
        # the fused kernels want equal widths of query, key and value, multiples of 8
        width = sum(size) + -(sum(size) + head_dim) % 8
        one_hot = self._constant(_one_hot_positions, size, width, q.dtype, q.device)
        unused = q.new_zeros(()).expand(*q.shape[:-1], width - sum(size))
        query = torch.cat([q * self.scale, bias_h, bias_w, unused], dim=-1)
        key = torch.cat([k, one_hot.expand(*k.shape[:-1], -1)], dim=-1)
        out = F.scaled_dot_product_attention(query, key, F.pad(v, (0, width)), scale=1.0)
        return out[..., :head_dim].transpose(1, 2)

    def _constant(self, make: Callable[..., Any], *of: Any) -> Any:
        """``make(*of)``, kept until it is asked for something else."""
        kept_of, kept = self._constants.get(make, (None, None))
        if kept_of == of:
            return kept
        with torch.inference_mode(False):  # else no training could use it later
            made = make(*of)
        if not torch.compiler.is_compiling():
            self._constants[make] = of, made
        return made


def attends_by_chunks(qkv: Tensor) -> bool:
    """Whether attention goes by chunks of scores, or is folded and left to a fused kernel."""
    if qkv.device.type != 'cpu':
        return False
    # with AMX products are so fast that passes over the scores cost more
    return not (_HAS_AMX and qkv.dtype == torch.bfloat16)


class _AttentionByChunks(torch.autograd.Function):
    """``(qkv, rel_h, rel_w, scale)`` as ``_attend_folded`` takes them, and gives.

    Softmax and the sums over chunks are in float32.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
        out = torch.empty_like(qkv[:, :, 0], memory_format=torch.contiguous_format)
        for part in _parts(qkv, rel_h, rel_w):
            attended = torch.empty_like(part.q)
            for rows in part.chunks:
                attended[:, rows] = part.weights(rows, scale) @ part.v
            out[part.place] = part.as_heads(attended)
        ctx.save_for_backward(qkv, rel_h, rel_w)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, rel_h, rel_w = ctx.saved_tensors
        d_qkv = torch.empty_like(qkv)
        d_rel_h, d_rel_w = (_zeros(table.shape, table) for table in (rel_h, rel_w))
        for part in _parts(qkv, rel_h, rel_w):
            d_out = part.of_heads(grad)
            d_q, d_bias_h, d_bias_w = map(torch.empty_like, (part.q, part.bias_h, part.bias_w))
            # turned round, so that none of the products needs a turned copy of the scores
            d_k, d_v = (_zeros(x.mT.shape, x) for x in (part.k, part.v))
            for rows in part.chunks:
                weights = part.weights(rows, ctx.scale)
                d_v += d_out[:, rows].mT @ weights
                d_scores = softmax_backward(d_out[:, rows] @ part.v.mT, weights, -1)
                d_q[:, rows] = (d_scores @ part.k).mul_(ctx.scale)
                d_k += part.q[:, rows].mT @ d_scores
                on_map = d_scores.unflatten(-1, (len(rel_h), len(rel_w)))
                d_bias_h[:, rows], d_bias_w[:, rows] = on_map.sum(-1), on_map.sum(-2)
            q_map, d_q_map, d_bias_h, d_bias_w = (
                x.unflatten(1, (len(rel_h), len(rel_w))) for x in (part.q, d_q, d_bias_h, d_bias_w)
            )
            d_q_map += torch.einsum('nhwk,hck->nhwc', d_bias_h, rel_h)
            d_q_map += torch.einsum('nhwk,wck->nhwc', d_bias_w, rel_w)
            d_rel_h += torch.einsum('nhwc,nhwk->hck', q_map, d_bias_h)
            d_rel_w += torch.einsum('nhwc,nhwk->wck', q_map, d_bias_w)
            for number, gradient in enumerate((d_q, d_k.mT.mul_(ctx.scale), d_v.mT)):
                d_qkv[:, :, number][part.place] = part.as_heads(gradient)
        return d_qkv, d_rel_h.to(rel_h.dtype), d_rel_w.to(rel_w.dtype), None


class _Part(NamedTuple):
    """Some heads of some windows or maps, N in all.

    Attributes:
        place: their slices in (G, h·w, heads, d).
        number_of_groups: windows or maps.
        q, k, v: (N, h·w, d).
        bias_h, bias_w: (N, h·w, h) and (N, h·w, w).
        chunks: queries whose scores are computed at once.
    """

    place: tuple[slice, slice, slice]
    number_of_groups: int
    q: Tensor
    k: Tensor
    v: Tensor
    bias_h: Tensor
    bias_w: Tensor
    chunks: list[slice]

    def weights(self, rows: slice, scale: float) -> Tensor:
        """Softmax (N, rows, h·w) of the scores of some queries."""
        bias = self.bias_h[:, rows, :, None] + self.bias_w[:, rows, None, :]
        return bias.flatten(2).baddbmm_(self.q[:, rows], self.k.mT, alpha=scale).softmax(-1)

    def as_heads(self, x: Tensor) -> Tensor:
        """(N, h·w, d) to what lies at ``place``."""
        return x.unflatten(0, (self.number_of_groups, -1)).transpose(1, 2)

    def of_heads(self, x: Tensor) -> Tensor:
        """What lies at ``place`` of (G, h·w, heads, d), (N, h·w, d)."""
        return x[self.place].transpose(1, 2).flatten(0, 1).contiguous()


def _parts(qkv: Tensor, rel_h: Tensor, rel_w: Tensor) -> Iterator[_Part]:
    groups, length, _, heads, _ = qkv.shape
    scores_at_once = _SCORES_AT_ONCE * torch.get_num_threads()
    for group in _slices(groups, scores_at_once // (heads * length**2)):
        for head in _slices(heads, scores_at_once // length**2):
            own = qkv[group, :, :, head].permute(2, 0, 3, 1, 4)
            q, k, v = own.flatten(1, 2).contiguous()
            yield _Part(
                (group, slice(None), head),
                own.shape[1],
                *(q, k, v),
                *_biases(q, rel_h, rel_w),
                _slices(length, scores_at_once // length),
            )


def _zeros(shape: torch.Size, like: Tensor) -> Tensor:
    """To add up in, in float32 or wider."""
    return like.new_zeros(shape, dtype=torch.promote_types(like.dtype, torch.float32))


def _relative_table(rel_pos: Tensor, size: int) -> Tensor:
    """(2·size - 1, d) table to (size, d, size): the entry for query i and key j is [i, :, j]."""
    return resize_rel_pos(rel_pos, 2 * size - 1).unfold(0, size, 1).flip(-1)


def _biases(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of queries (..., h·w, d) with each row (..., h·w, h) and column (..., h·w, w)."""
    q = q.unflatten(-2, (len(rel_h), len(rel_w)))
    bias_h = torch.einsum('...hwc,hck->...hwk', q, rel_h)
    bias_w = torch.einsum('...hwc,wck->...hwk', q, rel_w)
    return bias_h.flatten(-3, -2), bias_w.flatten(-3, -2)


def _one_hot_positions(
    size: tuple[int, int], width: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Row and column of each place of a map, (h·w, width): h entries, w entries, then zeros."""
    positions = torch.zeros(*size, width, dtype=dtype, device=device)
    rows, columns = (torch.eye(length, dtype=dtype, device=device) for length in size)
    positions[..., : size[0]] = rows[:, None]
    positions[..., size[0] : sum(size)] = columns
    return positions.flatten(0, 1)


def window_indices(
    size: tuple[int, int], window: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """How the tokens of a map of ``size`` (h, w) go to windows and back.

    Returns:
        The token at each place, (windows · places of one,) from 0 to h·w, which stands for the
        zeros that fill up the windows right and bottom; and the place of each token, (h·w,).
    """
    height, width = size
    tokens = torch.arange(height * width, device=device).view(size)
    filling = (0, -width % window[1], 0, -height % window[0])
    tokens = F.pad(tokens, filling, value=height * width)
    tokens = tokens.unflatten(1, (-1, window[1])).unflatten(0, (-1, window[0]))
    tokens = tokens.transpose(1, 2).flatten()
    return tokens, tokens.argsort()[: height * width]


def _slices(length: int, at_once: int) -> list[slice]:
    """Slices of ``at_once``, at least 1, that cover ``length``."""
    step = max(1, at_once)
    return [slice(start, start + step) for start in range(0, length, step)]


class TokenImageAttention(BaseModule):
    """Multi-head attention of the mask decoder, with q, k and v projected to fewer channels.

    ``forward`` is the plain attention between tokens. ``token_to_image`` and ``image_to_token``
    give what upstream computes with the image tokens as keys and values, or as queries, but never
    project the N image tokens: the projections are absorbed into the few tokens, since
    ``(Wq t)·(Wk x) = (Wkᵀ Wq t)·x``. Where all prompts of an image still see the same image
    tokens, these are passed once per image and not copied per prompt.

    Source: segment_anything/modeling/transformer.py @ 6fdee8f, ``Attention`` (parameters and
    result; the computation is ours).

    Args:
        embed_dim: channels C of tokens and image.
        num_heads: number of heads.
        downsample_rate: the projections have C / downsample_rate channels.
    """

    def __init__(self, embed_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        internal_dim = embed_dim // downsample_rate
        if internal_dim % num_heads:
            raise ValueError(f'num_heads {num_heads} must divide the inner width {internal_dim}')
        self.num_heads = num_heads
        self.scale = (internal_dim // num_heads) ** -0.5
        self.q_proj = nn.Linear(embed_dim, internal_dim)
        self.k_proj = nn.Linear(embed_dim, internal_dim)
        self.v_proj = nn.Linear(embed_dim, internal_dim)
        self.out_proj = nn.Linear(internal_dim, embed_dim)

    def _split_heads(self, x: Tensor) -> Tensor:
        """(P, T, D) to (P, heads, T, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of queries (P, T, C) over keys and values (P, T', C): (P, T, C)."""
        q, k, v = (
            self._split_heads(proj(x))
            for proj, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _absorbed(self, projected: Tensor, image_proj: nn.Linear) -> tuple[Tensor, Tensor]:
        """Rows (P, heads·T, C) and constants (P, heads·T) of projected tokens (P, T, D).

        ``rows · x + constants`` are their scores with ``image_proj(x)``.
        """
        per_head = self._split_heads(projected) * self.scale
        weight = image_proj.weight.unflatten(0, (self.num_heads, -1))  # (heads, d, C)
        bias = image_proj.bias.unflatten(0, (self.num_heads, -1))  # (heads, d)
        rows = torch.einsum('phtd,hdc->phtc', per_head, weight)
        constants = torch.einsum('phtd,hd->pht', per_head, bias)
        return rows.flatten(1, 2), constants.flatten(1)

    def token_to_image(
        self, tokens: Tensor, image_tokens: Tensor, image_pe: Tensor, counts: list[int] | None
    ) -> Tensor:
        """Tokens (P, T, C) attend to the image tokens: (P, T, C).

        Keys are ``image_tokens + image_pe``, values ``image_tokens``: (P, N, C), one set for each
        prompt, where ``counts`` is None; else (B, N, C), and ``counts`` are the numbers of prompts
        of the B images. ``image_pe`` is (N, C).
        """
        rows, constants = self._absorbed(self.q_proj(tokens), self.k_proj)
        context = attend_to_image(rows, constants, image_tokens, image_pe, counts)
        context = context.unflatten(1, (self.num_heads, -1))
        weight = self.v_proj.weight.unflatten(0, (self.num_heads, -1))
        out = torch.einsum('phtc,hdc->pthd', context, weight).flatten(2) + self.v_proj.bias
        return self.out_proj(out)

    def image_to_token(
        self,
        image_tokens: Tensor,
        image_pe: Tensor,
        keys: Tensor,
        values: Tensor,
        norm: nn.LayerNorm,
        counts: list[int] | None,
    ) -> Tensor:
        """The image tokens attend to the tokens: ``norm(image_tokens + attention)`` (P, N, C).

        Queries are ``image_tokens + image_pe``; keys and values are (P, T, C). ``image_tokens`` and
        ``counts`` as in ``token_to_image``.
        """
        rows, constants = self._absorbed(self.k_proj(keys), self.q_proj)
        per_head = self._split_heads(self.v_proj(values))
        weight = self.out_proj.weight.unflatten(1, (self.num_heads, -1))  # (C, heads, d)
        absorbed = torch.einsum('phtd,chd->phtc', per_head, weight).flatten(1, 2)
        # the weights of each head add up to 1, and so put the bias together again
        absorbed = absorbed + self.out_proj.bias / self.num_heads
        return update_image_tokens(
            rows, constants, absorbed, self.num_heads, image_tokens, image_pe, norm, counts
        )
