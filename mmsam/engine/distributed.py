"""Join the processes of a distributed run, on GPUs and on CPUs."""

import json
import os
import re
import shutil
import subprocess
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from mmsam.errors import LaunchError

DEFAULT_PORT = '29500'

TIMEOUT_VARIABLE = 'MMSAM_TIMEOUT_MINUTES'
DEFAULT_TIMEOUT = '10'
MAX_TIMEOUT = 7 * 24 * 60
"""Minutes without progress of any rank, as the variable holds them."""

_TIMES_FOR_ONE_EXCHANGE = 3


def init_distributed(launcher: str) -> None:
    """Create the default process group: NCCL where there are GPUs, else gloo.

    mmengine's own initialisation selects a GPU even for gloo; its Runner leaves a group that
    already exists alone.

    Args:
        launcher: ``'none'`` does nothing; ``'pytorch'`` (torchrun), ``'slurm'`` (srun) and
            ``'mpi'`` (mpirun) read the variables of that launcher.

    A rank that waits for another one, here or in a later exchange, fails after three times
    ``MMSAM_TIMEOUT_MINUTES`` (10 where the variable is not set): where one rank works alone that
    long, it may. Where none comes on, ``StallHook`` is sooner.

    Raises:
        LaunchError: a variable of the launcher is missing, the timeout is no number of minutes, or
            the group cannot be joined.
    """
    if launcher == 'none' or dist.is_initialized():
        return
    timeout = _TIMES_FOR_ONE_EXCHANGE * time_limit()
    if launcher == 'slurm':
        _export(rank='SLURM_PROCID', local_rank='SLURM_LOCALID', world_size='SLURM_NTASKS')
        os.environ.setdefault('MASTER_ADDR', _first_host(_variable('SLURM_NODELIST')))
    elif launcher == 'mpi':
        _export(
            rank='OMPI_COMM_WORLD_RANK',
            local_rank='OMPI_COMM_WORLD_LOCAL_RANK',
            world_size='OMPI_COMM_WORLD_SIZE',
        )
        os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR'):
        _variable(name)
    backend = 'gloo'
    if torch.cuda.is_available():
        backend = 'nccl'
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    try:
        dist.init_process_group(backend, timeout=timeout)
    except (RuntimeError, ValueError) as error:  # torch's DistError classes are RuntimeErrors
        address = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
        raise LaunchError(
            f'Rank {os.environ["RANK"]} could not join the others at {address}; is the port '
            f'taken? Set another one with PORT=... ({error})'
        ) from error


def time_limit() -> timedelta:
    """How long a run goes on without progress of any rank, ``MMSAM_TIMEOUT_MINUTES``.

    Raises:
        LaunchError: the variable is no number of minutes, fractions too, of at most a week.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT)
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= MAX_TIMEOUT:  # false for NaN too
        raise LaunchError(
            f'{TIMEOUT_VARIABLE}: expected a number of minutes above 0 and up to {MAX_TIMEOUT}, '
            f'got {text!r}.'
        )
    return timedelta(minutes=minutes)


def leave_to_torchrun(error: str, exit_code: int) -> None:
    """Write the file in which torchrun looks for the error of a process; the format is torch's.

    ``time`` and ``exit_code`` are for ``launch_torchrun.py``: torch's time stamps, in seconds, do
    not tell the first error from those that follow from it, and the code that torchrun sees may be
    that of its own signal.
    """
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if path:
        now = time.time()
        content = dict(
            message=error, extraInfo=dict(timestamp=str(int(now)), time=now, exit_code=exit_code)
        )
        with open(path, 'w') as file:
            json.dump(dict(message=content), file)


def _variable(name: str) -> str:
    """The environment variable ``name``, which the launcher must have set."""
    if name not in os.environ:
        raise LaunchError(
            f'The launcher set no {name}: start through tools/dist_train.sh or '
            'tools/slurm_train.sh, or use --launcher none.'
        )
    return os.environ[name]


def _export(rank: str, local_rank: str, world_size: str) -> None:
    """Copy a launcher's variables to the names that torch reads."""
    os.environ['RANK'] = _variable(rank)
    os.environ['LOCAL_RANK'] = _variable(local_rank)
    os.environ['WORLD_SIZE'] = _variable(world_size)


def _first_host(node_list: str) -> str:
    """First host of a Slurm node list such as ``n[01-04,7],gpu3``.

    ``scontrol`` knows every form; inside a container without it the first name is read from the
    list itself.
    """
    if shutil.which('scontrol'):
        result = subprocess.run(
            ['scontrol', 'show', 'hostnames', node_list], capture_output=True, text=True
        )
        if result.returncode == 0 and result.stdout.strip():
            return result.stdout.split()[0]
    match = re.match(r'([^\[,]+)(?:\[(\w+)[^\]]*\])?([^,]*)', node_list)
    if match is None:
        raise LaunchError(f'SLURM_NODELIST: expected host names, got {node_list!r}.')
    prefix, first_number, suffix = match.groups()
    return prefix + (first_number or '') + suffix
