"""Write the key lists beside this file: one line ``key shape`` for each tensor of a state dict.

    python tests/data/make_key_lists.py

``sam_vit_{b,l,h}_keys.txt`` come from the PyPI package segment-anything 1.0. With transformers
installed, ``hf_sam_tiny_keys.txt`` comes from its ``SamModel`` in the sizes of ``TINY_ARCH`` at
128 px; transformers 5.23.0 was used.
"""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]


def write_keys(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    lines = [f'{key} {"x".join(map(str, value.shape))}\n' for key, value in state_dict.items()]
    path.write_text(''.join(lines))
    print(f'{path}: {len(lines)} keys')


def main() -> None:
    import reference_sam  # noqa: F401  (makes segment_anything importable without torchvision)
    from segment_anything import sam_model_registry

    with torch.device('meta'):
        for name in ('vit_b', 'vit_l', 'vit_h'):
            sam = sam_model_registry[name]()
            write_keys(HERE / f'sam_{name}_keys.txt', sam.state_dict())
        if find_spec('transformers') is None:
            print('transformers is missing: hf_sam_tiny_keys.txt is left as it is')
            return
        from tiny_sam import TINY_ARCH
        from transformers import SamConfig, SamModel

        config = SamConfig(
            vision_config=dict(
                hidden_size=TINY_ARCH['embed_dim'],
                num_hidden_layers=TINY_ARCH['depth'],
                num_attention_heads=TINY_ARCH['num_heads'],
                global_attn_indexes=list(TINY_ARCH['global_attn_indexes']),
                window_size=TINY_ARCH['window_size'],
                image_size=128,
            ),
            prompt_encoder_config=dict(image_size=128),
        )
        write_keys(HERE / 'hf_sam_tiny_keys.txt', SamModel(config).state_dict())


if __name__ == '__main__':
    main()
