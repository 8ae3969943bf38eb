"""Train a model from a config: SAM with mmsam, or any mmseg model."""

# ruff: noqa: E402, I001  (a signal may come while the rest is imported)
from mmsam import stop_signal

if __name__ == '__main__':
    stop_signal.listen()

import argparse

from mmsam.apis import (
    add_training_arguments,
    check_room,
    hold_work_dir,
    load_training_config,
    run_tool,
)
from mmsam.engine import SAMRunner, init_distributed
from mmsam.engine.hooks import StallHook, StopHook


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
<<<<<<< HEAD
    add_training_arguments(parser)
=======
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
    parser.add_argument('--no-validate', action='store_true', help='train without validation')
    parser.add_argument('--amp', action='store_true', help='train in bfloat16 mixed precision')
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
>>>>>>> h-resume
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
<<<<<<< HEAD
    config = load_training_config(args)
=======
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    apply_start(config, args)
    if args.no_validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if args.amp:
        config.optim_wrapper.type = 'mmsam.BFloat16OptimWrapper'
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
>>>>>>> h-resume
    init_distributed(args.launcher)
    with hold_work_dir(config.work_dir):
        runner = SAMRunner.from_cfg(config)
        check_room(runner)
        runner.register_hook(StallHook())  # before StopHook, whose exchange waits for the others
        runner.register_hook(StopHook())
        runner.continue_requeued_job()
        runner.train()


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
