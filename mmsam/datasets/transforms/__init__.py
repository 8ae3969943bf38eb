"""Transforms of one image together with its boxes and masks, in the order of a pipeline.

Training::

    LoadSAMImage, RandomObjects, ResizeLongestSide, DecodeObjectMasks, RandomPromptedFlip,
    JitterBoxes, RandomPrompts, PackSAMInputs

Validation, whose masks stay RLE in original px::

    LoadSAMImage, ResizeLongestSide, PackSAMInputs
"""

from .geometric import RandomPromptedFlip, ResizeLongestSide
from .loading import DecodeObjectMasks, LoadSAMImage
from .packing import PackSAMInputs
from .prompts import JitterBoxes, RandomObjects, RandomPrompts

__all__ = [
    'DecodeObjectMasks',
    'JitterBoxes',
    'LoadSAMImage',
    'PackSAMInputs',
    'RandomObjects',
    'RandomPromptedFlip',
    'RandomPrompts',
    'ResizeLongestSide',
]
