"""Upstream's SAM, from the PyPI package ``segment-anything`` 1.0: the reference of parity tests.

Import it from here only: the package needs torchvision for two functions on PIL images, and where
torchvision is missing these stand in for it while the package is imported.
"""

import sys
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import nn


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """torchvision's ``resize`` of a PIL image to (h, w), bilinear."""
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _import_segment_anything() -> None:
    if find_spec('torchvision') is not None:
        import segment_anything  # noqa: F401

        return
    stub = {
        'torchvision': {},
        'torchvision.transforms': {},
        'torchvision.transforms.functional': {'resize': _resize, 'to_pil_image': Image.fromarray},
        'torchvision.ops': {},
        'torchvision.ops.boxes': {'batched_nms': None, 'box_area': None},
    }
    for name, members in stub.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(members)
    try:
        import segment_anything  # noqa: F401
    finally:
        # a stub left behind would look like a broken torchvision to others
        for name in stub:
            del sys.modules[name]


_import_segment_anything()

from segment_anything.modeling import (  # noqa: E402
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Draw every parameter anew, so that none keeps a start value that hides a bug.

    SAM's position embeddings and relative positions start at zero. The scales keep activations
    near 1 through the layers.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim == 1:  # biases near 0, weights of norms near 1
                is_norm_weight = name.endswith('weight')
                parameter.copy_(0.2 * noise + (1 if is_norm_weight else 0))
            elif name.endswith(('pos_embed', 'rel_pos_h', 'rel_pos_w')):
                parameter.copy_(0.3 * noise)
            elif parameter.ndim == 2 and parameter.shape[0] <= 4 and 'embed' in name:
                parameter.copy_(noise)
            elif name.endswith(('_token.weight', '_tokens.weight')):
                parameter.copy_(noise)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(noise / fan_in**0.5)


def build_reference_sam(arch: dict[str, Any], img_size: int) -> Sam:
    """Upstream's model in eval mode, every parameter random but the same in each call.

    Args:
        arch: ``embed_dim``, ``depth``, ``num_heads``, ``global_attn_indexes`` and, if not 14,
            ``window_size``.
        img_size: side of the padded square in px.
    """
    grid = img_size // 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the prompt encoder draws a buffer
        sam = Sam(
            image_encoder=ImageEncoderViT(
                **{'window_size': 14, **arch},
                img_size=img_size,
                patch_size=16,
                mlp_ratio=4,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                qkv_bias=True,
                use_rel_pos=True,
                out_chans=256,
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=256,
                image_embedding_size=(grid, grid),
                input_image_size=(img_size, img_size),
                mask_in_chans=16,
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(
                    depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
                ),
                transformer_dim=256,
                iou_head_depth=3,
                iou_head_hidden_dim=256,
            ),
            pixel_mean=[123.675, 116.28, 103.53],
            pixel_std=[58.395, 57.12, 57.375],
        )
    randomise(sam)
    return sam.eval()
