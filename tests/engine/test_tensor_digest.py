import pytest
import torch

from mmsam.engine import tensor_digest as module
from mmsam.engine.tensor_digest import tensor_digest

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_every_single_change_shows(dtype):
    tensor = torch.zeros(3, 4, dtype=dtype)
    digests = [tensor_digest(tensor).item()]
    for index in range(tensor.numel()):
        other = tensor.clone()
        other.view(-1)[index] = 1
        digests.append(tensor_digest(other).item())
    assert len(set(digests)) == 13
    assert not tensor.any()  # it only reads
    assert tensor_digest(tensor.clone()).item() == digests[0]


def test_the_last_bit_shows():
    tensor = torch.rand(100)
    other = tensor.clone()
    other[70] = torch.nextafter(other[70], torch.tensor(2.0))
    assert tensor_digest(tensor) != tensor_digest(other)


def test_changes_that_a_sum_would_lose_show():
    """Two elements exchanged, opposite steps, and all of 2**21 from 0 to 1."""
    tensor = torch.arange(8)
    for other in (tensor.flip(0), tensor + torch.tensor([1, -1] * 4)):
        assert tensor_digest(other) != tensor_digest(tensor)
    assert tensor_digest(torch.zeros(1 << 21)) != tensor_digest(torch.ones(1 << 21))


def test_blocks_change_nothing(monkeypatch):
    tensor = torch.rand(10, 3).t()
    whole = tensor_digest(tensor)
    monkeypatch.setattr(module, '_BLOCK', 7)
    assert tensor_digest(tensor) == whole


@pytest.mark.parametrize('shape', [(), (0,)])
def test_a_number_and_nothing(shape):
    assert tensor_digest(torch.ones(shape)).shape == ()
