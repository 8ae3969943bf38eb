"""Metrics of prompted masks."""

from .prediction_export import PredictionExport
from .prompted_mask_metric import PromptedMaskMetric

__all__ = ['PredictionExport', 'PromptedMaskMetric']
