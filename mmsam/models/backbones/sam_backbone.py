"""SAM's image encoder as the backbone of any mmseg model."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mmsam.checkpoint import load_weights
from mmsam.errors import ConfigError
from mmsam.models.sam import SAMImageEncoder
from mmsam.registry import MODELS


@MODELS.register_module()
class SAMBackbone(SAMImageEncoder):
    """``SAMImageEncoder`` with the output of an mmseg backbone: a tuple of feature maps.

    In a config whose default scope is mmseg, name it ``mmsam.SAMBackbone``. Heads take
    ``in_channels=256`` (``out_chans``), ``in_index=0``. Official SAM weights come in by
    ``init_cfg=dict(type='Pretrained', checkpoint=...)``, a path or a URL.

    Args: as ``SAMImageEncoder``; ``frozen`` keeps all of the encoder in eval mode and without
        gradient, so that only the heads train.

    Raises:
        ConfigError: ``Pretrained`` without a checkpoint, or ``frozen`` beside ``frozen_stages``.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'vit_b',
        img_size: int = 1024,
        out_chans: int = 256,
        with_cp: bool | Literal['global'] = False,
        frozen_stages: int = -1,
        compile_blocks: bool = False,
        frozen: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            arch, img_size, out_chans, with_cp, frozen_stages, compile_blocks, init_cfg
        )
        if init_cfg and init_cfg.get('type') == 'Pretrained' and not init_cfg.get('checkpoint'):
            raise ConfigError(f'SAMBackbone: Pretrained needs a checkpoint, got {init_cfg}.')
        if frozen and frozen_stages >= 0:
            raise ConfigError(
                'SAMBackbone: expected frozen=True (nothing of it trains) or frozen_stages (the '
                f'rest trains), got both, frozen_stages={frozen_stages}.'
            )
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)

    def init_weights(self) -> None:
        """Initialise; ``Pretrained`` weights load strictly, from a whole SAM's file."""
        if self.init_cfg and self.init_cfg['type'] == 'Pretrained':
            load_weights(self, self.init_cfg['checkpoint'], prefix='image_encoder.')
        else:
            super().init_weights()

    def train(self, mode: bool = True) -> 'SAMBackbone':
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        """Normalised images (B, 3, h, w), multiples of 16, to ((B, C, h/16, w/16),)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return (super().forward(x),)
