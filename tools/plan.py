"""Predict what a training takes and what fits a GPU, before anything is trained.

For the config as it is, with an embedding cache, in bfloat16, with activation checkpointing and
with LoRA: parameters, FLOPs, peak memory, disk, and the largest batch.
"""

import argparse
import sys

from mmsam.apis import (
    CARDS,
    add_common_arguments,
    load_run_config,
    plan_report,
    plan_training,
    run_tool,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--objects', type=int, metavar='N', help="of each image; else RandomObjects' max_objects"
    )
    parser.add_argument(
        '--memory',
        type=float,
        nargs='+',
        default=CARDS,
        metavar='GIB',
        help='of the GPUs to plan for',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    print('Steps of every variant are traced, which takes a minute or two.', file=sys.stderr)
    print(plan_report(plan_training(config, objects=args.objects, cards=args.memory)))


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
