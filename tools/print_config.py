"""Print a config as it would run: bases and overrides resolved, checked as train.py does."""

import argparse

from mmsam.apis import add_common_arguments, load_run_config, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    print(load_run_config(args.config, args.cfg_options, args.work_dir).pretty_text)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
