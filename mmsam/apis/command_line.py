"""What the tools' command lines share: arguments, and errors without a traceback."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from mmengine.config import DictAction

from mmsam.errors import MMSAMError


class _KeyValues(DictAction):
    """mmengine's ``KEY=VALUE`` pairs; a word without ``=`` is a usage error, not a traceback."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        wrong = [value for value in values if '=' not in value]
        if wrong:
            parser.error(f'{option_string}: expected KEY=VALUE, got {wrong[0]!r}')
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share with every MM tool."""
    parser.add_argument('config', help='path of the config file')
    parser.add_argument('--work-dir', help='folder of logs, checkpoints and results')
    parser.add_argument(
        '--options',
        '--cfg-options',
        dest='cfg_options',
        nargs='+',
        action=_KeyValues,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. model.image_encoder.with_cp=True '
        'train_cfg.max_iters=500; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='who started the processes of a distributed run',
    )
    # torch.distributed.launch passes it; torchrun sets the variable instead
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--debug', action='store_true', help='print tracebacks of known errors')


def run_tool(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main(args)``; an ``MMSAMError`` becomes one line and its exit code."""
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        main(args)
    except MMSAMError as error:
        if args.debug:
            traceback.print_exc()
        print(f'{type(error).__name__}: {error}', file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
