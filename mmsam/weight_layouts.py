"""The layouts of SAM's weights, and what the shapes of the tensors tell.

The *stock* layout is upstream's: a flat dict of tensors under ``image_encoder.*``,
``prompt_encoder.*`` and ``mask_decoder.*``. The other is that of transformers' ``SamModel``.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmsam.errors import CheckpointError

StateDict = dict[str, Tensor]

STOCK_PARTS = ('image_encoder.', 'prompt_encoder.', 'mask_decoder.')

ARCHITECTURE_NAMES = {(768, 12): 'vit_b', (1024, 24): 'vit_l', (1280, 32): 'vit_h'}
"""Name of a published image encoder by its width and depth."""


def find_encoder_prefix(state_dict: StateDict) -> str | None:
    """What stands before the image encoder's own keys; None without an image encoder."""
    end = 'patch_embed.proj.weight'
    for key in state_dict:
        prefix = key.removesuffix(end)
        position = state_dict.get(f'{prefix}pos_embed')
        if prefix != key and position is not None and position.ndim == 4:
            return prefix
    return None


def count_modules(state_dict: StateDict, prefix: str) -> int:
    """Number of modules in the list with this prefix, such as ``image_encoder.blocks.``."""
    return len({key[len(prefix) :].split('.')[0] for key in state_dict if key.startswith(prefix)})


def describe_architecture(state_dict: StateDict) -> str | None:
    """'vit_b', or the width and depth of an unnamed image encoder; None without one."""
    prefix = find_encoder_prefix(state_dict)
    if prefix is None:
        return None
    width = state_dict[f'{prefix}pos_embed'].shape[-1]
    depth = count_modules(state_dict, f'{prefix}blocks.')
    return ARCHITECTURE_NAMES.get((width, depth), f'ViT (width {width}, depth {depth})')


def read_grid_size(state_dict: StateDict) -> int:
    """Patches a side of the image encoder; 0 without one."""
    prefix = find_encoder_prefix(state_dict)
    return 0 if prefix is None else state_dict[f'{prefix}pos_embed'].shape[1]


def read_image_size(state_dict: StateDict) -> int:
    """``img_size`` in px of a state dict with an image encoder."""
    prefix = find_encoder_prefix(state_dict)
    return read_grid_size(state_dict) * state_dict[f'{prefix}patch_embed.proj.weight'].shape[-1]


_HUGGING_FACE_PREFIXES = (
    ('image_encoder.patch_embed.proj.', 'vision_encoder.patch_embed.projection.'),
    ('image_encoder.blocks.', 'vision_encoder.layers.'),
    ('image_encoder.neck.0.', 'vision_encoder.neck.conv1.'),
    ('image_encoder.neck.1.', 'vision_encoder.neck.layer_norm1.'),
    ('image_encoder.neck.2.', 'vision_encoder.neck.conv2.'),
    ('image_encoder.neck.3.', 'vision_encoder.neck.layer_norm2.'),
    ('image_encoder.', 'vision_encoder.'),
    ('prompt_encoder.point_embeddings.', 'prompt_encoder.point_embed.'),
    ('prompt_encoder.mask_downscaling.0.', 'prompt_encoder.mask_embed.conv1.'),
    ('prompt_encoder.mask_downscaling.1.', 'prompt_encoder.mask_embed.layer_norm1.'),
    ('prompt_encoder.mask_downscaling.3.', 'prompt_encoder.mask_embed.conv2.'),
    ('prompt_encoder.mask_downscaling.4.', 'prompt_encoder.mask_embed.layer_norm2.'),
    ('prompt_encoder.mask_downscaling.6.', 'prompt_encoder.mask_embed.conv3.'),
    ('mask_decoder.output_upscaling.0.', 'mask_decoder.upscale_conv1.'),
    ('mask_decoder.output_upscaling.1.', 'mask_decoder.upscale_layer_norm.'),
    ('mask_decoder.output_upscaling.3.', 'mask_decoder.upscale_conv2.'),
    (
        'mask_decoder.transformer.norm_final_attn.',
        'mask_decoder.transformer.layer_norm_final_attn.',
    ),
)
"""Beginnings of keys, stock and in transformers' ``SamModel``; the first that fits counts."""

_FREQUENCIES = 'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix'
_HUGGING_FACE_FREQUENCIES = (
    'shared_image_embedding.positional_embedding',
    'prompt_encoder.shared_embedding.positional_embedding',
)
"""One matrix, which ``SamModel`` has in two places; its files have one or both."""

_MLP = r'mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+)'


def to_hugging_face(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Stock keys to those of transformers' ``SamModel``; the tensors stay as they are.

    Source: transformers 5.23.0, ``models/sam/modeling_sam.py`` (names of the modules).
    """
    last_layers: dict[str, int] = {}
    for key in state_dict:
        if layer := re.fullmatch(rf'({_MLP}\.)layers\.(\d+)\.\w+', key):
            last_layers[layer[1]] = max(last_layers.get(layer[1], 0), int(layer[2]))
    converted = {}
    for key, value in state_dict.items():
        if key == _FREQUENCIES:
            for place in _HUGGING_FACE_FREQUENCIES:
                converted[place] = value.clone()  # safetensors refuses shared memory
        elif layer := re.fullmatch(rf'({_MLP}\.)layers\.(\d+)\.(\w+)', key):
            head, index, last = layer[1], int(layer[2]), last_layers[layer[1]]
            inner = {0: 'proj_in', last: 'proj_out'}.get(index, f'layers.{index - 1}')
            converted[f'{head}{inner}.{layer[3]}'] = value
        else:
            renamed = _replace_prefix(key, _HUGGING_FACE_PREFIXES)
            converted[re.sub(r'\.norm(\d)\.', r'.layer_norm\1.', renamed)] = value
    return converted


def from_hugging_face(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Keys of transformers' ``SamModel`` to stock keys; unknown ones pass unchanged.

    Raises:
        CheckpointError: the two copies of the frequencies of the positional encoding differ.
    """
    inner_layers: dict[str, int] = {}
    for key in state_dict:
        if layer := re.fullmatch(rf'({_MLP}\.)layers\.(\d+)\.\w+', key):
            inner_layers[layer[1]] = max(inner_layers.get(layer[1], 0), int(layer[2]) + 1)
    back = tuple((theirs, stock) for stock, theirs in _HUGGING_FACE_PREFIXES)
    converted: StateDict = {}
    for key, value in state_dict.items():
        if key in _HUGGING_FACE_FREQUENCIES:
            if not torch.equal(converted.setdefault(_FREQUENCIES, value), value):
                raise CheckpointError(f'{" and ".join(_HUGGING_FACE_FREQUENCIES)} differ.')
        elif layer := re.fullmatch(rf'({_MLP}\.)(proj_in|proj_out|layers\.\d+)\.(\w+)', key):
            head, inner = layer[1], layer[2]
            indexes = {'proj_in': 0, 'proj_out': inner_layers.get(head, 0) + 1}
            index = indexes[inner] if inner in indexes else int(inner.split('.')[1]) + 1
            converted[f'{head}layers.{index}.{layer[3]}'] = value
        else:
            renamed = _replace_prefix(key, back)
            converted[re.sub(r'\.layer_norm(\d)\.', r'.norm\1.', renamed)] = value
    return converted


def _replace_prefix(key: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def hugging_face_config(state_dict: StateDict) -> dict[str, Any]:
    """The ``config.json`` of a ``SamModel`` for these weights, read off their shapes.

    Args:
        state_dict: a whole SAM in the stock layout. Its mask decoder has 8 heads: that number
            is in no shape.
    """
    blocks = 'image_encoder.blocks.'
    depth = count_modules(state_dict, blocks)
    width = state_dict['image_encoder.pos_embed'].shape[-1]
    lengths = [state_dict[f'{blocks}{index}.attn.rel_pos_h'].shape[0] for index in range(depth)]
    global_length = 2 * read_grid_size(state_dict) - 1
    windows = [length for length in lengths if length != global_length]
    head_width = state_dict[f'{blocks}0.attn.rel_pos_h'].shape[1]
    image_size = read_image_size(state_dict)
    patch_size = image_size // read_grid_size(state_dict)
    decoder = 'mask_decoder.'
    iou_head = f'{decoder}iou_prediction_head.layers.'
    embed_dim = state_dict[f'{decoder}iou_token.weight'].shape[1]
    return {
        'architectures': ['SamModel'],
        'model_type': 'sam',
        'vision_config': {
            'hidden_size': width,
            'num_hidden_layers': depth,
            'num_attention_heads': width // head_width,
            'image_size': image_size,
            'patch_size': patch_size,
            'output_channels': embed_dim,
            'mlp_dim': state_dict[f'{blocks}0.mlp.lin1.weight'].shape[0],
            'num_pos_feats': state_dict[_FREQUENCIES].shape[1],
            'window_size': (windows[0] + 1) // 2 if windows else 14,
            'global_attn_indexes': [
                index for index, length in enumerate(lengths) if length == global_length
            ],
        },
        'prompt_encoder_config': {
            'hidden_size': embed_dim,
            'image_size': image_size,
            'patch_size': patch_size,
            'mask_input_channels': state_dict['prompt_encoder.mask_downscaling.3.weight'].shape[0],
        },
        'mask_decoder_config': {
            'hidden_size': embed_dim,
            'mlp_dim': state_dict[f'{decoder}transformer.layers.0.mlp.lin1.weight'].shape[0],
            'num_hidden_layers': count_modules(state_dict, f'{decoder}transformer.layers.'),
            'num_multimask_outputs': state_dict[f'{decoder}mask_tokens.weight'].shape[0] - 1,
            'iou_head_depth': count_modules(state_dict, iou_head),
            'iou_head_hidden_dim': state_dict[f'{iou_head}0.weight'].shape[0],
            # SamModel's default is 1e-6 here, unlike upstream
            'layer_norm_eps': 1e-5,
        },
    }
