from .sam_backbone import SAMBackbone

__all__ = ['SAMBackbone']
