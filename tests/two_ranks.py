"""Calls a function in two processes of one gloo group on this machine."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch


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
