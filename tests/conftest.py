import pytest
import torch

# the tests' models are tiny: more threads only wait for each other
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_run() -> None:
    torch.manual_seed(0)
