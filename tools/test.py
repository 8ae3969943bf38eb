"""Test a checkpoint with the config's test data: metrics, predictions and pictures."""

import argparse
from pathlib import Path

from mmsam.apis import (
    add_common_arguments,
    check_annotation_memory,
    check_load_from,
    check_paths,
    check_writable,
    load_run_config,
    run_tool,
)
from mmsam.engine import SAMRunner, init_distributed
from mmsam.engine.hooks import StallHook
from mmsam.errors import ConfigError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='path or URL of the weights')
    parser.add_argument(
        '--out', metavar='JSON', help='write the predictions as COCO results, masks as RLE'
    )
    parser.add_argument(
        '--show-dir', metavar='DIR', help='write a picture of every image: box, truth, prediction'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    if config.get('test_dataloader') is None:
        raise ConfigError(f'{args.config} has no test_dataloader.')
    if args.out:
        evaluators = config.test_evaluator
        config.test_evaluator = evaluators if isinstance(evaluators, list) else [evaluators]
        config.test_evaluator.append(dict(type='mmsam.PredictionExport', out_file=args.out))
    if args.show_dir:
        config.custom_hooks = [
            *config.get('custom_hooks', []),
            dict(type='mmsam.PromptedPictureHook', max_pictures=None, show_dir=args.show_dir),
        ]
    config.load_from, config.resume = args.checkpoint, False
    config.launcher = args.launcher
    check_paths(config, ('test_dataloader',))
    check_load_from(config)
    init_distributed(args.launcher)
    folders = [config.work_dir, Path(args.out).parent if args.out else None, args.show_dir]
    check_writable(*(folder for folder in folders if folder))
    check_annotation_memory(config, ('test_dataloader',))
    runner = SAMRunner.from_cfg(config)
    runner.register_hook(StallHook())
    runner.test()


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
