"""Initial weights for a SAM that trains from nothing.

A run that loads weights overwrites all of this. Without it, torch's defaults leave a SAM from
random weights predicting "nothing anywhere" for 150 iterations or more: at the start neither the
corner a token belongs to nor the place of an image token has an influence on the masks. What
happens here gives them one, without a new parameter:

- the constant added to all image embeddings starts smaller than the positions;
- the first self-attention starts as the identity (it has no residual, so with torch's defaults all
  tokens leave it as nearly the same average);
- each head of the attention from image to tokens starts by looking in a direction of its own:
  an image token attends to the box corner that lies ``_REACH`` away from it in that direction.

Numbers: ``docs/decisions/training-from-scratch.md``.
"""

import math

import torch
from torch import Tensor, nn

from .attention import TokenImageAttention
from .mask_decoder import SAMMaskDecoder
from .prompt_encoder import PositionEmbeddingRandom, SAMPromptEncoder
from .two_way_transformer import TwoWayAttentionBlock

_NO_MASK_SCALE = 0.5
"""Standard deviation of ``no_mask_embed``; positions have 0.7, torch's default is 1."""

_REACH = 0.15
"""Distance of the corner a head looks for, in sides of the padded square."""

_SHARPNESS = 1.6
"""Factor of the encoded positions in the queries and keys of such a head."""


@torch.no_grad()
def init_from_scratch(prompt_encoder: SAMPromptEncoder, mask_decoder: SAMMaskDecoder) -> None:
    """Initialise what torch's defaults leave in the way of training from random weights."""
    nn.init.normal_(prompt_encoder.no_mask_embed.weight, std=_NO_MASK_SCALE)
    for module in mask_decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for layer in mask_decoder.transformer.layers:
        assert isinstance(layer, TwoWayAttentionBlock)
        if layer.skip_first_layer_pe:  # without a residual
            _init_as_identity(layer.self_attn)
        _init_looking_around(layer.cross_attn_image_to_token, prompt_encoder.pe_layer)


def _init_as_identity(attention: TokenImageAttention) -> None:
    """Each token attends to itself and returns what it is."""
    nn.init.orthogonal_(attention.q_proj.weight)
    attention.k_proj.weight.copy_(attention.q_proj.weight)
    nn.init.orthogonal_(attention.v_proj.weight)
    attention.out_proj.weight.copy_(attention.v_proj.weight.t())


def _init_looking_around(attention: TokenImageAttention, pe: PositionEmbeddingRandom) -> None:
    """Queries and keys agree best where a token lies ``_REACH`` away in the head's direction.

    Each head compares the sines and cosines of some frequencies of its own; the sum of
    ``cos(2π f·(x - y))`` over these is largest where x = y.
    """
    weight = attention.k_proj.weight
    num_frequencies = pe.positional_encoding_gaussian_matrix.shape[1]
    num_channels = weight.shape[0] // attention.num_heads
    order = torch.randperm(num_frequencies).to(weight.device)
    queries, keys = [], []
    for head in range(attention.num_heads):
        chosen = order[head * num_channels // 2 : (head + 1) * num_channels // 2]
        key = weight.new_zeros(num_channels, weight.shape[1])
        rows = torch.arange(len(chosen), device=weight.device)
        key[rows, chosen] = _SHARPNESS
        key[len(chosen) + rows, num_frequencies + chosen] = _SHARPNESS
        angle = 2 * math.pi * head / attention.num_heads
        offset = _REACH * torch.tensor([math.cos(angle), math.sin(angle)])
        keys.append(key)
        queries.append(key @ translation_of_encoding(pe, offset))
    weight.copy_(torch.cat(keys))
    attention.q_proj.weight.copy_(torch.cat(queries))


def translation_of_encoding(pe: PositionEmbeddingRandom, offset: Tensor) -> Tensor:
    """The matrix (C, C) that moves a position: ``matrix @ encode(x)`` is ``encode(x + offset)``.

    Args:
        pe: the encoding, of C channels.
        offset: (2,), (x, y) in sides of the padded square.
    """
    frequencies = pe.positional_encoding_gaussian_matrix
    angles = 2 * math.pi * (2 * offset.to(frequencies) @ frequencies)
    cos, sin = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])
