"""Print a config as it would run: bases and overrides resolved, checked as train.py does.

With --static, look at one that you do not trust: a config is a program, which is only read then.
"""

import argparse

from mmsam.apis import add_common_arguments, describe_config, load_run_config, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--static',
        action='store_true',
        help='run nothing; print what the config would import, call and set',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if args.static:
        print(describe_config(args.config))
    else:
        print(load_run_config(args.config, args.cfg_options, args.work_dir).pretty_text)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
