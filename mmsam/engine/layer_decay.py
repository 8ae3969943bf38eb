"""Learning rates that fall from the last block of an image encoder to its first."""

import re

from torch import nn

from mmsam.errors import ConfigError
from mmsam.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .optim_wrappers import TrainableParamsConstructor

_LAYER = re.compile(
    r'(?:image_encoder|backbone)\.(?:(?P<first>patch_embed\.|pos_embed$)|blocks\.(?P<block>\d+)\.)'
)
"""Parameters below the neck: of ``SAMSegmentor``, and of an mmseg model on ``SAMBackbone``."""

_POSITIONS = ('pos_embed', 'rel_pos_h', 'rel_pos_w')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(TrainableParamsConstructor):
    """Learning rates for training all of SAM from published weights: low close to the image.

    Layer 0 of the image encoder is its patch embedding with ``pos_embed``, layer i + 1 its block
    i, layer depth + 1 its neck. The learning rate of a layer is the optimizer's times
    ``decay_rate ** (depth + 1 - layer)``; the neck and all other parts have the optimizer's own.
    Biases, norms (all of one axis), embeddings and tables of positions have no weight decay. What
    is frozen is left out.

    Args:
        optim_wrapper_cfg: as mmengine's constructor; its optimizer needs ``lr``.
        paramwise_cfg: ``dict(decay_rate=r)`` and nothing else, 0 < r <= 1.

    Raises:
        ConfigError: another ``paramwise_cfg``, no ``lr``, or a model without such an encoder.

    Source: detectron2/modeling/backbone/vit.py @ 95a87b8, ``get_vit_lr_decay_rate``; SAM itself was
    trained with a rate of 0.8 (Segment Anything, appendix A, training recipe).
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get('decay_rate')
        is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if self.paramwise_cfg.keys() != {'decay_rate'} or not (is_number and 0 < rate <= 1):
            raise ConfigError(
                'optim_wrapper.paramwise_cfg of LayerDecayConstructor: expected '
                f'dict(decay_rate=r) with 0 < r <= 1, got {paramwise_cfg!r}.'
            )
        if self.base_lr is None:
            raise ConfigError('optim_wrapper.optimizer of LayerDecayConstructor: expected an lr.')

    def add_params(self, params: list[dict], module: nn.Module) -> None:
        """Append one group for each learning rate with, and one without weight decay."""
        layers = {name: _layer(name) for name, _ in module.named_parameters()}
        neck = max(layers.values()) + 1
        if neck == 0:
            raise ConfigError(
                'LayerDecayConstructor: expected a model with blocks in image_encoder or '
                f'backbone, got {type(module).__name__} without.'
            )
        groups: dict[tuple[int, bool], dict] = {}
        for owner_name, owner in module.named_modules():
            for name, parameter in owner.named_parameters(owner_name, recurse=False):
                if not parameter.requires_grad:
                    continue
                below = 0 if layers[name] < 0 else neck - layers[name]
                is_decayed = not (
                    parameter.ndim <= 1
                    or isinstance(owner, nn.Embedding)
                    or name.endswith(_POSITIONS)
                )
                group = groups.setdefault((below, is_decayed), {'params': []})
                group['params'].append(parameter)
                group['lr'] = self.base_lr * self.paramwise_cfg['decay_rate'] ** below
                if not is_decayed:
                    group['weight_decay'] = 0.0
        params.extend(groups.values())


def _layer(name: str) -> int:
    """Layer of a parameter below the neck; -1 for all others, whose rate is not lowered."""
    match = _LAYER.match(name)
    if match is None:
        return -1
    return 0 if match['first'] else int(match['block']) + 1
