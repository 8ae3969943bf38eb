"""Join the processes of a distributed run, on GPUs and on CPUs."""

import json
import os
import time
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from mmsam.errors import LaunchError

from . import slurm

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
        _find_others_of_step()
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
        torch.cuda.set_device(_gpu())
    try:
        if launcher == 'slurm':
            dist.init_process_group(
                backend,
                store=slurm.open_store(timeout),
                rank=int(os.environ['RANK']),
                world_size=int(os.environ['WORLD_SIZE']),
                timeout=timeout,
            )
        else:
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
    that of its own signal. On a full disk there is no file; half of one would end torchrun.
    """
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if path:
        now = time.time()
        content = dict(
            message=error, extraInfo=dict(timestamp=str(int(now)), time=now, exit_code=exit_code)
        )
        try:
            with open(path, 'w') as file:
                json.dump(dict(message=content), file)
        except OSError:
            with suppress(OSError):
                os.remove(path)


def _find_others_of_step() -> None:
    """Set where the processes of a Slurm step meet, as far as the user has not."""
    hosts = slurm.host_names(os.environ.get('SLURM_STEP_NODELIST') or _variable('SLURM_NODELIST'))
    os.environ.setdefault('MASTER_ADDR', hosts[0])
    os.environ.setdefault('MASTER_PORT', str(slurm.port_of_step()))
    if len(hosts) > 1 and 'GLOO_SOCKET_IFNAME' not in os.environ:
        # gloo would offer the address of the host's own name, which is often 127.0.1.1
        other = hosts[0] if _variable('SLURM_NODEID') != '0' else hosts[1]
        interface = slurm.interface_to(other)
        if interface is not None:
            os.environ['GLOO_SOCKET_IFNAME'] = interface


def _gpu() -> int:
    """Index of this process's GPU; a launcher may show each process no other than its own."""
    local_rank, count = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
    if local_rank < count:
        return local_rank
    if count == 1:
        return 0
    raise LaunchError(
        f'Process {local_rank} of this machine (from 0) needs a GPU of its own, but sees {count}.'
    )


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
