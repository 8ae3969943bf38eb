"""Hooks: they change what a run uses or records, never tensors."""

from .checkpoint_hook import SAMCheckpointHook
from .divergence_hook import DivergenceHook
from .early_stopping_hook import SAMEarlyStoppingHook
from .embedding_cache_hook import EmbeddingCacheHook
from .frozen_check_hook import FrozenCheckHook
from .gradient_check_hook import GradientCheckHook
from .mask_loss_hook import MaskLossHook
from .missed_validation_hook import MissedValidationHook
from .stall_hook import StallHook
from .stock_weights_hook import StockWeightsHook
from .stop_hook import StopHook
from .zero_shot_hook import ZeroShotHook

__all__ = [
    'DivergenceHook',
    'EmbeddingCacheHook',
    'FrozenCheckHook',
    'GradientCheckHook',
    'MaskLossHook',
    'MissedValidationHook',
    'SAMCheckpointHook',
    'SAMEarlyStoppingHook',
    'StallHook',
    'StockWeightsHook',
    'StopHook',
    'ZeroShotHook',
]
