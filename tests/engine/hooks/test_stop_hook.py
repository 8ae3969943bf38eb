"""A signal at any iteration costs nothing: stopped and resumed equals never stopped."""

import itertools
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from torch import nn

from mmsam import stop_signal
from mmsam.engine import SAMRunner
from mmsam.engine.hooks import StopHook
from mmsam.errors import StoppedError
from mmsam.training_checkpoint import latest_training_checkpoint, read_training_checkpoint

MAX_ITERS = 7


class ToyModel(BaseModel):
    """Draws random numbers in each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode != 'loss':
            return list(inputs)
        return {'loss': self.dropout(self.linear(torch.stack(list(inputs)))).square().sum()}


class WeightMetric(BaseMetric):
    """The score is the weight itself; remembers all scores of the process."""

    default_prefix = 'toy'
    seen: list[float] = []

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict[str, float]:
        self.seen.append(float(self.model.linear.weight.detach().sum()))
        return {'score': self.seen[-1]}


class SignalHook(StopHook):
    """A StopHook to which a signal comes in chosen iterations (counted from 1)."""

    def __init__(self, signals: set[int]) -> None:
        self.signals = signals

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter + 1 in self.signals:
            self.signals.remove(runner.iter + 1)
            stop_signal._remember(15, None)
        super().after_train_iter(runner, *args, **kwargs)


_NAMES = itertools.count()


def train(
    work_dir: Path,
    signals: set[int],
    resume: bool = False,
    interval: int = 100,
    accumulative_counts: int = 1,
) -> None:
    torch.manual_seed(0)
    data = [{'inputs': torch.randn(3), 'data_samples': None} for _ in range(5)]
    model = ToyModel()
    runner = SAMRunner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=2, num_workers=0, sampler=dict(type='SeededInfiniteSampler')
        ),
        train_cfg=dict(by_epoch=False, max_iters=MAX_ITERS, val_interval=2),
        val_dataloader=dict(
            dataset=data, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        val_cfg=dict(),
        val_evaluator=Evaluator(WeightMetric(model)),
        optim_wrapper=dict(
            optimizer=dict(type='Adam', lr=0.1), accumulative_counts=accumulative_counts
        ),
        default_hooks=dict(
            checkpoint=dict(
                type='SAMCheckpointHook', by_epoch=False, interval=interval,
                save_best='toy/score', rule='greater',
            )
        ),
        log_processor=dict(by_epoch=False),
        log_level='ERROR',
        default_scope='mmsam',
        randomness=dict(seed=3),
        experiment_name=f'stop_hook_{next(_NAMES)}',
        resume=resume,
    )  # fmt: skip
    runner.register_hook(SignalHook(signals))
    runner.train()


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """Weights and optimizer after a run without a signal, the scores, and the best checkpoint."""
    folder = tmp_path_factory.mktemp('straight')
    WeightMetric.seen.clear()
    train(folder, set())
    (best,) = (path.name for path in folder.glob('best*.pth'))
    return read_training_checkpoint(folder / 'iter_7.pth'), list(WeightMetric.seen), best


@pytest.mark.parametrize('signals', [[1], [2], [3, 4, 5], [6], [7], list(range(1, 8))], ids=str)
def test_stopped_and_resumed_equals_never_stopped(straight, tmp_path, signals):
    """Also at an iteration whose validation was still to come, which is made up for."""
    expected, scores, best = straight
    WeightMetric.seen.clear()
    left = set(signals)
    for number, iteration in enumerate(signals):
        with pytest.raises(StoppedError, match=f'SIGTERM: stopped after iteration {iteration}; '):
            train(tmp_path, left, resume=number > 0)
        assert latest_training_checkpoint(tmp_path).name == f'iter_{iteration}.pth'
    train(tmp_path, left, resume=True)
    final = read_training_checkpoint(tmp_path / 'iter_7.pth')
    assert WeightMetric.seen == scores
    for key, value in expected['state_dict'].items():
        assert torch.equal(final['state_dict'][key], value)
    for index, state in expected['optimizer']['state'].items():
        for key, value in state.items():
            assert torch.equal(final['optimizer']['state'][index][key], value)
    assert [path.name for path in tmp_path.glob('best*.pth')] == [best]


def test_an_iteration_that_was_saved_anyway(tmp_path):
    with pytest.raises(StoppedError, match='saved as .*iter_4.pth'):
        train(tmp_path, {4}, interval=2)
    assert latest_training_checkpoint(tmp_path).name == 'iter_4.pth'


def test_between_two_updates_it_goes_on_to_the_next(tmp_path):
    """The gradients collected by then would be lost."""
    train(tmp_path / 'straight', set(), accumulative_counts=3)
    with pytest.raises(StoppedError, match='SIGTERM: stopped after iteration 6; '):
        train(tmp_path / 'run', {4}, accumulative_counts=3)
    train(tmp_path / 'run', set(), resume=True, accumulative_counts=3)
    weights = [
        read_training_checkpoint(tmp_path / name / 'iter_7.pth')['state_dict']['linear.weight']
        for name in ('straight', 'run')
    ]
    assert torch.equal(*weights)
