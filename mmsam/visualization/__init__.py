"""Pictures and reports of what a model did, for people to look at."""

from mmsam.visualization.prediction_picture import draw_before_after, draw_prediction, draw_sample
from mmsam.visualization.prompted_picture_hook import PromptedPictureHook
from mmsam.visualization.report_hook import ReportHook

__all__ = [
    'PromptedPictureHook',
    'ReportHook',
    'draw_before_after',
    'draw_prediction',
    'draw_sample',
]
