"""Pictures of what a model did, for people to look at."""

from mmsam.visualization.prediction_picture import draw_prediction, draw_sample
from mmsam.visualization.prompted_picture_hook import PromptedPictureHook

__all__ = ['PromptedPictureHook', 'draw_prediction', 'draw_sample']
