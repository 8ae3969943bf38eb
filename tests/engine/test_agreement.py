from pathlib import Path

from two_ranks import fork_two_ranks

from mmsam.engine.agreement import raised_by_all
from mmsam.errors import DataError, MMSAMError, StorageError

ERRORS: list[dict[int, MMSAMError]] = [
    {},
    {1: StorageError('of rank 1')},
    {0: DataError('of rank 0'), 1: StorageError('of rank 1')},
]
"""By rank."""


def write_what_is_raised(rank: int, folder: Path) -> None:
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
    fork_two_ranks(write_what_is_raised, tmp_path)
    for number in range(2):
        assert (tmp_path / f'rank_{number}').read_text().splitlines() == [
            'none',
            'StorageError: of rank 1',
            'DataError: of rank 0',
        ]
