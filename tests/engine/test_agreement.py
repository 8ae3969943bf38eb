import multiprocessing
from pathlib import Path

import torch

from mmsam.engine.agreement import raised_by_all
from mmsam.errors import DataError, MMSAMError, StorageError

ERRORS: list[dict[int, MMSAMError]] = [
    {},
    {1: StorageError('of rank 1')},
    {0: DataError('of rank 0'), 1: StorageError('of rank 1')},
]
"""By rank."""


def write_what_is_raised(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    told = []
    for errors in ERRORS:
        try:
            with raised_by_all():
                if rank in errors:
                    raise errors[rank]
            told.append('none')
        except MMSAMError as error:
            told.append(f'{type(error).__name__}: {error}')
    (folder / f'rank_{rank}').write_text('\n'.join(told))


def test_both_ranks_raise_the_error_of_one(tmp_path):
    fork = multiprocessing.get_context('fork')  # spares the imports
    ranks = [fork.Process(target=write_what_is_raised, args=(n, tmp_path)) for n in range(2)]
    for rank in ranks:
        rank.start()
    try:
        for rank in ranks:
            rank.join(timeout=120)
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    for number in range(2):
        assert (tmp_path / f'rank_{number}').read_text().splitlines() == [
            'none',
            'StorageError: of rank 1',
            'DataError: of rank 0',
        ]
