"""What the command line tools are made of."""

from .command_line import add_common_arguments, run_tool
from .comparison import compare_weights
from .config_check import check_config
from .data_check import check_data, check_data_quickly, data_report, draw_data, raise_errors
from .plan import CARDS, plan_report, plan_training
from .run_config import check_load_from, check_paths, load_run_config, use_bfloat16_loop
from .split_check import check_splits
from .start_check import check_annotation_memory, check_room
from .static_config import describe_config
from .testing import add_prompt_arguments, apply_prompt_arguments
from .training import add_training_arguments, load_training_config
from .work_dir import check_writable, hold_work_dir

__all__ = [
    'CARDS',
    'add_common_arguments',
    'add_prompt_arguments',
    'add_training_arguments',
    'apply_prompt_arguments',
    'check_annotation_memory',
    'check_config',
    'check_data',
    'check_data_quickly',
    'check_load_from',
    'check_paths',
    'check_room',
    'check_splits',
    'check_writable',
    'compare_weights',
    'data_report',
    'describe_config',
    'draw_data',
    'hold_work_dir',
    'load_run_config',
    'load_training_config',
    'plan_report',
    'plan_training',
    'raise_errors',
    'run_tool',
    'use_bfloat16_loop',
]
