"""SAM 1's three parts, under upstream's file names, words and parameter names."""

from .image_encoder import SAMImageEncoder
from .mask_decoder import SAMMaskDecoder
from .prompt_encoder import SAMPromptEncoder

__all__ = ['SAMImageEncoder', 'SAMMaskDecoder', 'SAMPromptEncoder']
