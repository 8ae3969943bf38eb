import pytest
import torch

from mmsam.models.precision import fast_bfloat16


@pytest.mark.parametrize(
    ('has_amx', 'has_avx512_bf16', 'expected'),
    [(True, True, True), (False, True, True), (True, False, True), (False, False, False)],
)
def test_processors(monkeypatch, has_amx, has_avx512_bf16, expected):
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: has_amx)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: has_avx512_bf16)
    assert fast_bfloat16(torch.device('cpu')) is expected


@pytest.mark.parametrize('is_native', [True, False])
def test_gpus(monkeypatch, is_native):
    """Emulated bfloat16 is slow; what is asked is the device of the tensors."""
    entered = []

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            entered.append(self.device)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(torch.cuda, 'device', Device)
    monkeypatch.setattr(
        torch.cuda,
        'is_bf16_supported',
        lambda including_emulation=True: including_emulation or is_native,
    )
    assert fast_bfloat16(torch.device('cuda', 1)) is is_native
    assert entered == [torch.device('cuda', 1)]


def test_other_devices():
    assert not fast_bfloat16(torch.device('meta'))
