"""What the tools' command lines share: arguments, and errors without a traceback."""

import argparse
import atexit
import ctypes
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import torch.distributed as dist
from mmengine.config import DictAction

from mmsam.engine.distributed import leave_to_torchrun
from mmsam.errors import ConfigError, LaunchError, MMSAMError

PR_SET_PDEATHSIG = 1
"""Of Linux's ``prctl``: the signal to get when the parent dies."""


class _KeyValues(DictAction):
    """mmengine's ``KEY=VALUE`` pairs; what is none ends the program as an ``MMSAMError`` does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for pair in values:
            key, equals, text = pair.partition('=')
            if not key or not equals:
                _refuse(f'{option_string}: expected KEY=VALUE, got {pair!r}.')
            if not _has_balanced_brackets(text):
                _refuse(f'{option_string} {key}: expected balanced brackets, got {text}.')
            if not _is_finite(self._parse_iterable(text)):
                _refuse(f'{option_string} {key}: expected finite numbers, got {text}.')
        super().__call__(parser, namespace, values, option_string)


def _has_balanced_brackets(text: str) -> bool:
    """Whether a value is no list, or one whose brackets belong together."""
    text = text.strip('\'"')
    if not text.startswith(('[', '(')) and ',' not in text:
        return True  # such as a file name
    expected = []
    for character in text:
        if character in '[(':
            expected.append(']' if character == '[' else ')')
        elif character in '])' and (not expected or expected.pop() != character):
            return False
    return not expected


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _refuse(problem: str) -> NoReturn:
    _tell(ConfigError(problem))
    sys.exit(ConfigError.exit_code)


def _tell(error: MMSAMError) -> None:
    """Print an error in one line, and leave it to torchrun."""
    sentence = f'{type(error).__name__}: {error}'
    print(sentence, file=sys.stderr, flush=True)
    leave_to_torchrun(sentence, error.exit_code)


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
    """Run ``main(args)``; an ``MMSAMError`` becomes one line and its exit code.

    Under torchrun the process dies with the launcher, and leaves its error to be printed last. A
    process that a launcher started, or that has created a process group, does not return: it ends
    here, with 0, the code of the ``MMSAMError``, or 1 after the traceback of any other error.
    """
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    logging.raiseExceptions = False  # a log on a full disk: a traceback for each line
    exit_code = 0
    is_rank = args.launcher != 'none'
    try:
        if args.launcher == 'pytorch':
            _die_with_the_launcher()
        main(args)
    except MMSAMError as error:
        exit_code = error.exit_code
        if args.debug:
            traceback.print_exc()
        _tell(error)
    except Exception:
        exit_code = 1
        leave_to_torchrun(traceback.format_exc(), exit_code)
        if not (is_rank or _is_distributed()):
            raise
        traceback.print_exc()
    if is_rank or _is_distributed():
        _end_process(exit_code)
    if exit_code:
        sys.exit(exit_code)


def _die_with_the_launcher() -> None:
    """Have Linux kill this process when the launcher dies, which kill -9 hinders to do so itself.

    Until here, that is during the imports of the tool (seconds), the process would outlive it;
    ``launch_torchrun.py`` says who it was, so that a process left alone by then ends here.

    Raises:
        LaunchError: the launcher has died already.
    """
    if sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    launcher = os.environ.get('MMSAM_LAUNCHER_PID')
    if launcher is not None and launcher != str(os.getppid()):
        raise LaunchError(f'Expected the launcher, process {launcher}, as parent, but it died.')


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _end_process(exit_code: int) -> NoReturn:
    """End a process of a distributed run without the interpreter's own end.

    There, threads of torch sometimes abort a run that is done (SIGABRT, 7 of 104 with gloo), a
    failed one may wait for ranks that wait for it, and signals kill again: the launcher's, because
    another rank has failed, would replace the exit code. What counts of the interpreter's end is
    done first: exit functions flush logs and stop the data loaders' processes.
    """
    if exit_code == 0 and _is_distributed():
        dist.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
