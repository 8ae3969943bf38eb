"""mmsam: fine-tune Segment Anything (SAM) on your own masks, the MMSegmentation way."""

from mmsam.stack import check_stack

check_stack()

__version__ = '0.1.0'
