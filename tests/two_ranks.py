"""Runs a test file, or a function of it, as two processes of one gloo group on this machine."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import mmsam


def run_on_two_ranks(script: str, folder: Path) -> None:
    """Run ``script`` twice; there, ``join_the_other_rank`` returns ``folder``, for results."""
    paths = [str(Path(mmsam.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    ranks = [
        subprocess.Popen([sys.executable, script, str(folder), str(rank)], env=environment)
        for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()


def join_the_other_rank() -> Path:
    """Called in the script: create the process group, return the folder."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=int(sys.argv[2]), world_size=2
    )
    return folder


def fork_two_ranks(function: Callable[[int, Path], None], folder: Path) -> None:
    """Call ``function(rank, folder)`` in two forks of this process, which spares the imports."""
    fork = multiprocessing.get_context('fork')
    ranks = [fork.Process(target=_call, args=(function, rank, folder)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    try:
        for rank in ranks:
            rank.join(timeout=120)
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0]


def _call(function: Callable[[int, Path], None], rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    function(rank, folder)
