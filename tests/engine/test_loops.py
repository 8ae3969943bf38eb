from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import DataLoader

from mmsam.engine import BFloat16TestLoop, BFloat16ValLoop


class Seen(nn.Module):
    """Remembers in what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.seen: list[tuple] = []

    def val_step(self, batch):
        out = self.linear(batch)
        # what autocast of a GPU would compute in
        self.seen.append((out.dtype, torch.get_autocast_dtype('cuda'), out.requires_grad))
        return [BaseDataElement()]

    test_step = val_step


class Counted(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        self.results.append(len(data_batch))

    def compute_metrics(self, results) -> dict[str, int]:
        return dict(images=sum(results))


@pytest.mark.parametrize('loop', [BFloat16ValLoop, BFloat16TestLoop])
@pytest.mark.trap(12)
def test_predictions_are_in_bfloat16_on_every_device(loop):
    model = Seen()
    runner = SimpleNamespace(model=model, call_hook=lambda *_, **__: None)
    loader = DataLoader(torch.ones(5, 3), batch_size=2)
    assert loop(runner, loader, Evaluator([Counted()])).run() == dict(images=5)
    assert model.seen == [(torch.bfloat16, torch.bfloat16, False)] * 3
    # and nothing of it is left behind
    assert torch.get_autocast_dtype('cuda') == torch.float16
    assert model.linear(torch.ones(3)).dtype == torch.float32


def test_the_default_of_gpus_comes_back_after_an_error():
    model = nn.Module()  # without val_step
    runner = SimpleNamespace(model=model, call_hook=lambda *_, **__: None)
    loop = BFloat16ValLoop(runner, DataLoader(torch.ones(1, 3)), Evaluator([Counted()]))
    with pytest.raises(AttributeError, match='val_step'):
        loop.run()
    assert torch.get_autocast_dtype('cuda') == torch.float16
