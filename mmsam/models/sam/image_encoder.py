"""SAM's image encoder: a ViT with windowed and global attention and a convolutional neck."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

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
        with_cp: recompute blocks in the backward pass instead of storing their activations: False
            none, True each, ``'global'`` those with global attention, which store most.
        frozen_stages: what does not train, stays in eval mode and stores no activations: -1
            nothing, 0 the patch and position embedding, k also the first k blocks.
        compile_blocks: compile each block with ``torch.compile`` at its first call, for GPUs.

    Raises:
        ValueError: an unknown ``arch`` or ``with_cp``, or a number that does not fit.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'vit_b',
        img_size: int = 1024,
        out_chans: int = 256,
        with_cp: bool | Literal['global'] = False,
        frozen_stages: int = -1,
        compile_blocks: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        sizes = _architecture(arch)
        if img_size <= 0 or img_size % PATCH_SIZE:
            raise ValueError(f'img_size must be a multiple of {PATCH_SIZE}, got {img_size}')
        embed_dim, num_heads = sizes['embed_dim'], sizes['num_heads']
        if embed_dim % num_heads:
            raise ValueError(f'num_heads {num_heads} must divide embed_dim {embed_dim}')
        if with_cp not in (False, True, 'global'):
            raise ValueError(f"with_cp must be False, True or 'global', got {with_cp!r}")
        if not -1 <= frozen_stages <= sizes['depth']:
            raise ValueError(
                f'frozen_stages must lie in -1..{sizes["depth"]}, the number of blocks, '
                f'got {frozen_stages}'
            )
        self.arch_name = arch if isinstance(arch, str) else None
        self.img_size = img_size
        self.out_chans = out_chans
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
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
        if frozen_stages >= 0:
            self.pos_embed.requires_grad_(False)
        for module in self._frozen_modules():
            module.requires_grad_(False)
        if compile_blocks:
            for block in self.blocks:
                block.compile()

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.patch_embed, *self.blocks[: self.frozen_stages]]

    def train(self, mode: bool = True) -> 'SAMImageEncoder':
        """Switch between training and evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w), h and w multiples of 16, to (B, C, h/16, w/16).

        Under autocast, what is added up from block to block and all norms are in float32, and so
        is the result.
        """
        num_frozen_blocks = max(self.frozen_stages, 0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_stages < 0):
            # one copy here instead of strided access in every block
            x = self.patch_embed(x).contiguous()
            x = x + resize_pos_embed(self.pos_embed, (x.shape[1], x.shape[2]))
            for block in self.blocks[:num_frozen_blocks]:
                x = block(x)
        for block in self.blocks[num_frozen_blocks:]:
            if torch.is_grad_enabled() and self._is_recomputed(block):
                # not re-entrant: works although the image itself needs no gradient
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        reduce, first_norm, smooth, last_norm = self.neck
        x = first_norm(reduce(x.permute(0, 3, 1, 2)).float())
        return last_norm(smooth(x).float())

    def _is_recomputed(self, block: nn.Module) -> bool:
        if self.with_cp == 'global':
            assert isinstance(block, Block)
            return not block.attn.window_size
        return bool(self.with_cp)


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
        self.attn = RelativePositionAttention(dim, num_heads, input_size, window_size)
        self.norm2 = norm_layer(dim)
        self.mlp = MLPBlock(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


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
