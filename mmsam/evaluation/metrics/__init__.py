"""Metrics of prompted masks."""

from .coco_mask_ap import COCOMaskAP
from .prediction_export import PredictionExport
from .prompted_iou_metric import PromptedIoUMetric
from .prompted_mask_metric import PromptedMaskMetric

__all__ = ['COCOMaskAP', 'PredictionExport', 'PromptedIoUMetric', 'PromptedMaskMetric']
