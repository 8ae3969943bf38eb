"""Test a checkpoint with the config's test data: metrics, predictions and pictures.

With --zero-shot, compare it with other weights on the same prompts.
"""

import argparse
from pathlib import Path

from mmsam.apis import (
    add_common_arguments,
    add_prompt_arguments,
    apply_prompt_arguments,
    check_annotation_memory,
    check_load_from,
    check_paths,
    check_writable,
    compare_weights,
    load_run_config,
    run_tool,
    use_bfloat16_loop,
)
from mmsam.engine import SAMRunner, init_distributed
from mmsam.engine.hooks import StallHook
from mmsam.errors import ConfigError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='path or URL of the weights')
    parser.add_argument(
        '--out',
        metavar='JSON',
        help='write the predictions as COCO results, masks as RLE; with --zero-shot those of the '
        'checkpoint, not those of STOCK',
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write a picture of every image: prompts, truth, prediction',
    )
    parser.add_argument(
        '--zero-shot',
        metavar='STOCK',
        help='test these weights first, and compare: a table, comparison.json in the work dir, and '
        'in --show-dir only the images that became worse: truth, before, after',
    )
    parser.add_argument('--amp', action='store_true', help='test in bfloat16 mixed precision')
    add_prompt_arguments(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    if config.get('test_dataloader') is None:
        raise ConfigError(f'{args.config} has no test_dataloader.')
    apply_prompt_arguments(config, args)
    if args.amp:
        use_bfloat16_loop(config, 'test_cfg')
    if args.out:
        evaluators = config.test_evaluator
        config.test_evaluator = evaluators if isinstance(evaluators, list) else [evaluators]
        config.test_evaluator.append(dict(type='mmsam.PredictionExport', out_file=args.out))
    if args.show_dir and not args.zero_shot:
        config.custom_hooks = [
            *config.get('custom_hooks', []),
            dict(type='mmsam.PromptedPictureHook', max_pictures=None, show_dir=args.show_dir),
        ]
    config.resume, config.launcher = False, args.launcher
    check_paths(config, ('test_dataloader',))
    for weights in filter(None, (args.zero_shot, args.checkpoint)):
        config.load_from = weights
        check_load_from(config)
    init_distributed(args.launcher)
    folders = [config.work_dir, Path(args.out).parent if args.out else None, args.show_dir]
    check_writable(*(folder for folder in folders if folder))
    check_annotation_memory(config, ('test_dataloader',))
    runner = SAMRunner.from_cfg(config)
    runner.register_hook(StallHook())
    if args.zero_shot:
        compare_weights(runner, args.zero_shot, args.checkpoint, args.show_dir)
    else:
        runner.test()


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
