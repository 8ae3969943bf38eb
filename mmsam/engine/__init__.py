"""What a run does besides the model's forward and backward pass."""

from .distributed import init_distributed
from .hooks import *  # noqa: F403  (registers the hooks)
from .layer_decay import LayerDecayConstructor
from .loops import BFloat16TestLoop, BFloat16ValLoop
from .optim_wrappers import BFloat16OptimWrapper, SAMOptimWrapper, TrainableParamsConstructor
from .runner import SAMRunner

__all__ = [
    'BFloat16OptimWrapper',
    'BFloat16TestLoop',
    'BFloat16ValLoop',
    'LayerDecayConstructor',
    'SAMOptimWrapper',
    'SAMRunner',
    'TrainableParamsConstructor',
    'init_distributed',
]
