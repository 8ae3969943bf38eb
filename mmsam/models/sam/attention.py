"""SAM's attentions, computed so that no large intermediate has to be kept.

``RelativePositionAttention`` is the image encoder's; ``TokenImageAttention`` is the mask
decoder's, between a few tokens and the thousands of tokens of an image.
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from .image_token_functions import attend_to_image, update_image_tokens


def resize_rel_pos(rel_pos: Tensor, length: int) -> Tensor:
    """Resample a table of relative positions (L, C) linearly to (length, C).

    Source: segment_anything/modeling/image_encoder.py @ 6fdee8f, ``get_rel_pos``.
    """
    if rel_pos.shape[0] == length:
        return rel_pos
    resized = F.interpolate(rel_pos.float().t()[None], size=length, mode='linear')
    return resized[0].t().to(rel_pos.dtype)


def _relative_table(rel_pos: Tensor, size: int) -> Tensor:
    """(2·size - 1, C) table to (size, size, C): the entry for query i and key j is [i, j]."""
    table = resize_rel_pos(rel_pos, 2 * size - 1)
    coords = torch.arange(size, device=rel_pos.device)
    return table[coords[:, None] - coords[None, :] + size - 1]


class RelativePositionAttention(BaseModule):
    """Multi-head self-attention with decomposed relative positions.

    The score of query at (y, x) and key at (v, u) is ``s·q·k + q·Rh[y-v] + q·Rw[x-u]``. Upstream
    builds the last two terms as an (HW)² bias. Here they are part of the scalar product: the
    query becomes ``[s·q, q·Rh[y-0..], q·Rw[x-0..]]``, the key ``[k, onehot(v), onehot(u)]``, and
    plain attention without a bias gives the same scores, forward and backward.

    Source: segment_anything/modeling/image_encoder.py @ 6fdee8f, ``Attention`` (parameters and
    result; the computation is ours).

    Args:
        dim: channels C, a multiple of ``num_heads``.
        num_heads: number of heads.
        input_size: (h, w) of the map or window, which sizes the tables of relative positions;
            another size at run time resamples them.
    """

    def __init__(self, dim: int, num_heads: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        head_dim = dim // num_heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * input_size[0] - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * input_size[1] - 1, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h, w, C)."""
        batch, height, width, dim = x.shape
        heads, head_dim = self.num_heads, dim // self.num_heads
        qkv = self.qkv(x).reshape(batch, height * width, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, h·w, head_dim)

        q_map = q.reshape(batch, heads, height, width, head_dim)
        rel_h = _relative_table(self.rel_pos_h, height).to(q.dtype)
        rel_w = _relative_table(self.rel_pos_w, width).to(q.dtype)
        bias_h = torch.einsum('bnhwc,hkc->bnhwk', q_map, rel_h).flatten(2, 3)
        bias_w = torch.einsum('bnhwc,wkc->bnhwk', q_map, rel_w).flatten(2, 3)
        rows = torch.arange(height * width, device=x.device).div(width, rounding_mode='floor')
        columns = torch.arange(height * width, device=x.device).remainder(width)
        one_hot = torch.cat([F.one_hot(rows, height), F.one_hot(columns, width)], dim=-1)
        one_hot = one_hot.to(k.dtype).expand(batch, heads, -1, -1)

        query = torch.cat([q * self.scale, bias_h, bias_w], dim=-1)
        key = torch.cat([k, one_hot], dim=-1)
        # the fused kernels want equal widths of query, key and value
        value = F.pad(v, (0, height + width))
        out = F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :head_dim]
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, dim))


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
