"""Train a model from a config: SAM with mmsam, or any mmseg model."""

# ruff: noqa: E402, I001  (a signal may come while the rest is imported)
from mmsam import stop_signal

if __name__ == '__main__':
    stop_signal.listen()

import argparse

from mmsam.apis import (
    add_training_arguments,
    check_annotation_memory,
    check_data_quickly,
    check_room,
    check_splits,
    hold_work_dir,
    load_training_config,
    run_tool,
)
from mmsam.engine import SAMRunner, init_distributed
from mmsam.engine.hooks import MissedValidationHook, StallHook, StopHook


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_training_arguments(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    config = load_training_config(args)
    init_distributed(args.launcher)
    with hold_work_dir(config.work_dir):
        check_annotation_memory(config, ('train_dataloader', 'val_dataloader'))
        runner = SAMRunner.from_cfg(config)
        check_room(runner)
        runner.register_hook(StallHook())  # before StopHook, whose exchange waits for the others
        runner.register_hook(MissedValidationHook())
        runner.register_hook(StopHook())
        runner.go_on_if_stopped(args.auto_resume)
        check_splits(runner)
        check_data_quickly(runner)
        runner.train()


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
