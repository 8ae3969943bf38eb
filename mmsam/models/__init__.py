"""Registered models: SAM's parts, what wires them, and their losses."""

from mmsam.registry import MODELS

from .backbones import SAMBackbone
from .data_preprocessor import SAMDataPreprocessor
from .losses import *  # noqa: F403  (registers the losses)
from .sam import SAMImageEncoder, SAMMaskDecoder, SAMPromptEncoder
from .segmentors import SAMSegmentor

# the parts know nothing of the registries, so they are registered here
for _part in (SAMImageEncoder, SAMPromptEncoder, SAMMaskDecoder):
    MODELS.register_module(module=_part)

__all__ = [
    'SAMBackbone',
    'SAMDataPreprocessor',
    'SAMImageEncoder',
    'SAMMaskDecoder',
    'SAMPromptEncoder',
    'SAMSegmentor',
]
