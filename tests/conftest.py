from pathlib import Path

import pytest
import torch

# the tests' models are tiny: more threads only wait for each other
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_run() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> Path:
    """The small data set of whole runs, which no test may change."""
    from tiny_run import write_dataset  # imports all of mmsam, which few tests need

    return write_dataset(tmp_path_factory.mktemp('data') / 'tiny')
