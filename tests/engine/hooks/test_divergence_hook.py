import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmsam.engine import SAMRunner
from mmsam.engine.hooks import DivergenceHook
from mmsam.errors import ConfigError, DivergedError
from mmsam.structures import SAMDataSample


class ToyModel(BaseModel):
    """The loss is the input times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return {'loss': self.weight * torch.stack(list(inputs)).sum()}


def make_runner(work_dir, values: list[float], accumulative_counts: int = 1, **hook) -> SAMRunner:
    """One image a value, in their order, each one iteration; log records go to ``records``."""
    data = []
    for number, value in enumerate(values, start=1):
        sample = SAMDataSample(metainfo={'img_path': f'images/{number}.png'})
        data.append({'inputs': torch.tensor([value]), 'data_samples': sample})
    return SAMRunner(
        model=ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=1, num_workers=0,
            sampler=dict(type='SeededInfiniteSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=False, max_iters=len(values)),
        optim_wrapper=dict(
            type='SAMOptimWrapper', optimizer=dict(type='SGD', lr=0.001),
            accumulative_counts=accumulative_counts,
        ),
        custom_hooks=[dict(type='DivergenceHook', **hook)],
        log_processor=dict(by_epoch=False),
        log_level='ERROR',
        default_scope='mmsam',
        experiment_name=f'divergence_hook_{work_dir.name}',
    )  # fmt: skip


@pytest.fixture
def logged(monkeypatch):
    """Collects what a runner's logger gets as errors and warnings."""
    messages = []

    def listen(runner: SAMRunner) -> SAMRunner:
        monkeypatch.setattr(runner.logger, 'error', messages.append)
        monkeypatch.setattr(runner.logger, 'warning', messages.append)
        return runner

    return listen, messages


NAN = float('nan')


@pytest.mark.bad_input(90)
def test_the_images_of_a_bad_batch_are_named_and_the_run_goes_on(tmp_path, logged):
    listen, messages = logged
    runner = listen(make_runner(tmp_path, [1, 1, NAN, 1]))
    runner.train()
    assert len(messages) == 1
    assert messages[0].startswith('Iteration 3: NaN or infinite gradient, update left out (1 in')
    assert 'images/3.png' in messages[0] and 'loss nan' in messages[0]
    # three updates of 0.001 times a gradient of 1
    assert runner.model.weight.item() == pytest.approx(1 - 3 * 0.001)


@pytest.mark.bad_input(90)
def test_so_many_in_a_row_end_the_run(tmp_path, logged):
    listen, messages = logged
    runner = listen(make_runner(tmp_path, [1, NAN, 1, NAN, NAN, 1], max_skipped=2))
    with pytest.raises(DivergedError, match=r'Iteration 5: .*\(2 in a row\).*images/5.png'):
        runner.train()
    assert len(messages) == 2
    assert runner.model.weight.isfinite()


@pytest.mark.bad_input(90)
def test_all_images_of_an_accumulated_update_are_named(tmp_path, logged):
    """Of four updates the second and the fourth are left out, which is not twice in a row."""
    listen, messages = logged
    values = [1, 1, NAN, 1, 1, 1, 1, NAN]
    runner = listen(make_runner(tmp_path, values, accumulative_counts=2, max_skipped=2))
    runner.train()
    assert [message.split(':')[0] for message in messages] == ['Iteration 4', 'Iteration 8']
    assert 'loss nan of images/3.png; loss 1 of images/4.png' in messages[0].replace('0.999', '1')
    assert 'images/7.png; loss nan of images/8.png' in messages[1]
    # two updates of 0.001 times a mean gradient of 1
    assert runner.model.weight.item() == pytest.approx(1 - 2 * 0.001)


def test_a_loss_ten_times_the_median_is_a_spike(tmp_path, logged):
    listen, messages = logged
    listen(make_runner(tmp_path, [1.0] * 49 + [30.0] + [1.0] * 3 + [9.0, 11.0])).train()
    # the 30 comes when 49 are known, the 9 is below ten times the median
    assert [message.split(':')[0] for message in messages] == ['Iteration 55']
    assert 'more than 10 times the median' in messages[0]


def test_a_limit_of_none_is_refused():
    with pytest.raises(ConfigError, match='max_skipped of DivergenceHook: .* at least 1, got 0'):
        DivergenceHook(max_skipped=0)
