"""The arguments of a training, and the config that they make of the one given."""

import argparse

from mmengine.config import Config

from mmsam.engine import slurm
from mmsam.errors import ConfigError

from .command_line import add_common_arguments
from .run_config import check_load_from, check_paths, load_run_config, use_bfloat16_loop


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train.py``, those shared with the other tools included."""
    add_common_arguments(parser)
    parser.add_argument(
        '--load-from',
        metavar='CKPT',
        help='path or URL of weights to start from, at iteration 0 (transfer to another task)',
    )
    parser.add_argument(
        '--resume-from',
        metavar='CKPT',
        help='checkpoint to go on from: weights, optimizer, schedule, iteration',
    )
    parser.add_argument(
        '--resume', action='store_true', help='go on from the latest checkpoint in the work dir'
    )
    parser.add_argument(
        '--auto-resume',
        action='store_true',
        help='as --resume where the work dir holds a checkpoint, else as without it: for jobs that '
        'a cluster stops and starts again',
    )
    parser.add_argument('--no-validate', action='store_true', help='train without validation')
    parser.add_argument(
        '--amp', action='store_true', help='train and validate in bfloat16 mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rates with the images an update (config's auto_scale_lr)",
    )
    parser.add_argument('--seed', type=int, help="random seed; else the config's")
    parser.add_argument(
        '--deterministic', action='store_true', help='use deterministic algorithms only'
    )
    parser.add_argument('--tensorboard', action='store_true', help='write TensorBoard logs too')


def load_training_config(args: argparse.Namespace) -> Config:
    """The config as it will train: checked, all arguments of the command line in it.

    Args:
        args: of ``add_training_arguments``.

    Raises:
        ConfigError: no such config, something in it is wrong, or arguments exclude each other or
            do not go with it.
        CheckpointError: the file to start from is missing.
        DataError: data of the training or the validation is missing.
    """
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    _apply_start(config, args)
    if args.no_validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if args.amp:
        config.optim_wrapper.type = 'mmsam.BFloat16OptimWrapper'
        if config.get('val_cfg') is not None:
            use_bfloat16_loop(config, 'val_cfg')
    if args.auto_scale_lr:
        if config.get('auto_scale_lr') is None:
            raise ConfigError(
                '--auto-scale-lr: expected auto_scale_lr=dict(base_batch_size=N) in the config, N '
                'being the images an update that its learning rates are for, got none.'
            )
        config.auto_scale_lr.enable = True
    if args.seed is not None:
        config.setdefault('randomness', {})['seed'] = args.seed
    if args.deterministic:
        config.setdefault('randomness', {})['deterministic'] = True
    if args.tensorboard:
        config.visualizer.vis_backends.append(dict(type='TensorboardVisBackend'))
    config.launcher = args.launcher
    check_paths(config, ('train_dataloader', 'val_dataloader'))
    if not (args.auto_resume or slurm.is_requeued()):  # which may go on without that file
        check_load_from(config)
    return config


def _apply_start(config: Config, args: argparse.Namespace) -> None:
    """Set where the run starts: ``load_from`` and ``resume`` of the config."""
    chosen = [
        option
        for option, value in (
            ('--load-from', args.load_from),
            ('--resume-from', args.resume_from),
            ('--resume', args.resume),
        )
        if value
    ]
    if len(chosen) > 1:
        raise ConfigError(
            f'Expected one of --load-from (weights only, from iteration 0), --resume-from and '
            f'--resume (go on where a run stopped), got {" and ".join(chosen)}.'
        )
    if args.resume:
        config.load_from, config.resume = None, True
    elif args.load_from:
        config.load_from, config.resume = args.load_from, False
    elif args.resume_from:
        config.load_from, config.resume = args.resume_from, True
