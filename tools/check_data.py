"""Check the data of a config: numbers, errors that would stop a training, and what is suspicious.

Reads every image and every object. Errors end it with their exit code, warnings do not.
"""

import argparse

from mmsam.apis import (
    add_common_arguments,
    check_annotation_memory,
    check_data,
    check_writable,
    data_report,
    draw_data,
    load_run_config,
    raise_errors,
    run_tool,
)
from mmsam.errors import ConfigError

PHASES = ('train', 'val', 'test')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--phase',
        nargs='+',
        choices=PHASES,
        help='whose data to check; else all that the config has',
    )
    parser.add_argument(
        '--show-dir', metavar='DIR', help='write pictures of the findings and of a few samples'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    there = [phase for phase in PHASES if config.get(f'{phase}_dataloader') is not None]
    phases = args.phase or there
    missing = [f'{phase}_dataloader' for phase in phases if phase not in there]
    if missing or not phases:
        raise ConfigError(f'{args.config} has no {" and no ".join(missing) or "data loader"}.')
    if args.show_dir:
        check_writable(args.show_dir)
    check_annotation_memory(config, tuple(f'{phase}_dataloader' for phase in phases))
    splits = check_data(config, phases)
    print(data_report(splits))
    if args.show_dir:
        draw_data(splits, args.show_dir)
    raise_errors(splits)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
