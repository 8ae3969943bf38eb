"""Transforms of one image together with its boxes and masks, in the order of a pipeline.

Training::

    LoadSAMImage, RandomObjects, ResizeLongestSide or RandomScaleCrop, DecodeObjectMasks,
    RandomPromptedFlip, RandomPromptedRotate90, JitterBoxes, RandomPrompts, PackSAMInputs

What changes only the colours of ``img`` is mmseg's and mmcv's own: ``PhotoMetricDistortion``, and
``RandomGrayscale`` with ``keep_channels=True``.

Validation, whose masks stay RLE in original px::

    LoadSAMImage, ResizeLongestSide, PackSAMInputs
"""

from .geometric import RandomPromptedFlip, RandomPromptedRotate90, ResizeLongestSide
from .loading import DecodeObjectMasks, LoadSAMImage
from .packing import PackSAMInputs
from .prompts import JitterBoxes, RandomObjects, RandomPrompts
from .scale_crop import RandomScaleCrop

__all__ = [
    'DecodeObjectMasks',
    'JitterBoxes',
    'LoadSAMImage',
    'PackSAMInputs',
    'RandomObjects',
    'RandomPromptedFlip',
    'RandomPromptedRotate90',
    'RandomPrompts',
    'RandomScaleCrop',
    'ResizeLongestSide',
]
