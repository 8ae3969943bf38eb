"""Images with objects to segment, one box prompt per object."""

from . import transforms
from .box_prompt_dataset import BoxPromptDataset
from .samplers import EpochIndex, SeededInfiniteSampler

__all__ = ['BoxPromptDataset', 'EpochIndex', 'SeededInfiniteSampler', 'transforms']
