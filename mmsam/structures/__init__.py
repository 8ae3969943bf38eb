from .sam_data_sample import SAMDataSample

__all__ = ['SAMDataSample']
