"""SAM's image encoder: a ViT with windowed and global attention and a convolutional neck."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import RelativePositionAttention, resize_rel_pos
from .layers import LayerNorm2d, MLPBlock

PATCH_SIZE = 16

ARCHITECTURES: dict[str, dict[str, Any]] = {
    'vit_b': dict(embed_dim=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11)),
    'vit_l': dict(embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23)),
    'vit_h': dict(embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31)),
}
"""The three published sizes. Source: segment_anything/build_sam.py @ 6fdee8f."""

ARCHITECTURE_KEYS = {'embed_dim', 'depth', 'num_heads', 'global_attn_indexes', 'window_size'}


class SAMImageEncoder(BaseModule):
    """Image (B, 3, S, S) in padded px to image embeddings (B, 256, S/16, S/16).

    Parameters carry upstream's names, so its weights load unchanged. Weights of another
    ``img_size`` load too: the position embedding is resampled bicubically, the tables of relative
    positions linearly. An input of another size than ``img_size``, any multiple of 16, is handled
    in the same way at run time.

    Source: segment_anything/modeling/image_encoder.py @ 6fdee8f.

    Args:
        arch: ``'vit_b'``, ``'vit_l'``, ``'vit_h'``, or a dict with ``embed_dim``, ``depth``,
            ``num_heads``, ``global_attn_indexes`` (the blocks without windows) and, if not 14,
            ``window_size`` (in patches).
        img_size: side S of the padded square in px, a multiple of 16.
        out_chans: channels of the embeddings.
        with_cp: recompute the blocks in the backward pass instead of storing their activations.

    Raises:
        ValueError: an unknown ``arch`` or a size that does not fit.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'vit_b',
        img_size: int = 1024,
        out_chans: int = 256,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        sizes = _architecture(arch)
        if img_size <= 0 or img_size % PATCH_SIZE:
            raise ValueError(f'img_size must be a multiple of {PATCH_SIZE}, got {img_size}')
        embed_dim, num_heads = sizes['embed_dim'], sizes['num_heads']
        if embed_dim % num_heads:
            raise ValueError(f'num_heads {num_heads} must divide embed_dim {embed_dim}')
        self.arch_name = arch if isinstance(arch, str) else None
        self.img_size = img_size
        self.out_chans = out_chans
        self.with_cp = with_cp
        grid = img_size // PATCH_SIZE
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                window_size=0 if index in sizes['global_attn_indexes'] else sizes['window_size'],
                input_size=(grid, grid),
            )
            for index in range(sizes['depth'])
        )
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dim, out_chans, kernel_size=1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )
        self.register_load_state_dict_pre_hook(_resize_positions)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w), h and w multiples of 16, to (B, 256, h/16, w/16)."""
        # one copy here instead of strided access in every block
        x = self.patch_embed(x).contiguous()
        x = x + resize_pos_embed(self.pos_embed, (x.shape[1], x.shape[2]))
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                # not re-entrant: works although the image itself needs no gradient
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class PatchEmbed(BaseModule):
    """Image (B, 3, h, w) to patch embeddings (B, h/16, w/16, C), channels last."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Block(BaseModule):
    """Transformer block on (B, h, w, C): attention in windows or global, then an MLP.

    Args:
        dim: channels C.
        num_heads: heads of the attention.
        window_size: side of the attention windows in patches; 0 attends globally.
        input_size: (h, w) of the whole map, for global attention.
    """

    def __init__(
        self, dim: int, num_heads: int, window_size: int, input_size: tuple[int, int]
    ) -> None:
        super().__init__()
        norm_layer = partial(nn.LayerNorm, eps=1e-6)
        self.norm1 = norm_layer(dim)
        self.attn = RelativePositionAttention(
            dim, num_heads, (window_size, window_size) if window_size else input_size
        )
        self.norm2 = norm_layer(dim)
        self.mlp = MLPBlock(dim, 4 * dim)
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        if self.window_size:
            windows = window_partition(normed, self.window_size)
            attended = window_unpartition(
                self.attn(windows), self.window_size, (x.shape[1], x.shape[2])
            )
        else:
            attended = self.attn(normed)
        x = x + attended
        return x + self.mlp(self.norm2(x))


def window_partition(x: Tensor, window_size: int) -> Tensor:
    """(B, h, w, C) to windows (B·n, window, window, C), padded right and bottom with zeros.

    Padded tokens take part in the attention, as upstream's do: weights were trained with them.
    """
    batch, height, width, channels = x.shape
    pad_h, pad_w = -height % window_size, -width % window_size
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    x = x.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))
    return x.transpose(2, 3).reshape(-1, window_size, window_size, channels)


def window_unpartition(windows: Tensor, window_size: int, size: tuple[int, int]) -> Tensor:
    """Reverse of ``window_partition``: windows to (B, h, w, C) with (h, w) = ``size``."""
    height, width = size
    rows, columns = -(-height // window_size), -(-width // window_size)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def resize_pos_embed(pos_embed: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a position embedding (1, h, w, C) bicubically to the grid ``size``."""
    if (pos_embed.shape[1], pos_embed.shape[2]) == size:
        return pos_embed
    resized = F.interpolate(
        pos_embed.float().permute(0, 3, 1, 2), size=size, mode='bicubic', align_corners=False
    )
    return resized.permute(0, 2, 3, 1).to(pos_embed.dtype)


def _architecture(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of an architecture by name, or a checked copy of explicit ones."""
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            raise ValueError(f'arch must be one of {sorted(ARCHITECTURES)} or a dict, got {arch!r}')
        return dict(window_size=14, **ARCHITECTURES[arch])
    sizes = dict(window_size=14) | dict(arch)
    if set(sizes) != ARCHITECTURE_KEYS:
        raise ValueError(f'arch needs the keys {sorted(ARCHITECTURE_KEYS)}, got {sorted(sizes)}')
    indexes: Sequence[int] = sizes['global_attn_indexes']
    if any(not 0 <= index < sizes['depth'] for index in indexes):
        raise ValueError(f'global_attn_indexes {indexes} must lie in 0..{sizes["depth"] - 1}')
    return sizes


def _resize_positions(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Before loading: resample position embedding and relative positions to the module's size.

    Only the lengths are adapted; another number of channels is left for the loader to refuse.
    """
    for name, parameter in module.named_parameters():
        value = state_dict.get(prefix + name)
        if value is None or value.shape == parameter.shape or value.ndim != parameter.ndim:
            continue
        if value.shape[-1] != parameter.shape[-1]:
            continue
        if name == 'pos_embed':
            size = (parameter.shape[1], parameter.shape[2])
            state_dict[prefix + name] = resize_pos_embed(value, size)
        elif name.endswith(('rel_pos_h', 'rel_pos_w')):
            state_dict[prefix + name] = resize_rel_pos(value, parameter.shape[0])
