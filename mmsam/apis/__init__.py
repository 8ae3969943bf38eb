"""What the command line tools are made of."""

from .command_line import add_common_arguments, run_tool
from .config_check import check_config
from .run_config import check_paths, load_run_config
from .training import add_training_arguments, load_training_config

__all__ = [
    'add_common_arguments',
    'add_training_arguments',
    'check_config',
    'check_paths',
    'load_run_config',
    'load_training_config',
    'run_tool',
]
