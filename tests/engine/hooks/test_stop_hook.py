"""A signal at any iteration costs nothing: stopped and resumed equals never stopped."""

import pytest
import torch
from toy_run import WeightMetric, train

from mmsam import stop_signal
from mmsam.engine.hooks import MissedValidationHook, StopHook
from mmsam.errors import StoppedError
from mmsam.training_checkpoint import latest_training_checkpoint, read_training_checkpoint


class SignalHook(StopHook):
    """A StopHook to which a signal comes in chosen iterations (counted from 1)."""

    def __init__(self, signals: set[int]) -> None:
        self.signals = signals

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter + 1 in self.signals:
            self.signals.remove(runner.iter + 1)
            stop_signal._remember(15, None)
        super().after_train_iter(runner, *args, **kwargs)


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """Weights and optimizer after a run without a signal, the scores, and the best checkpoint."""
    folder = tmp_path_factory.mktemp('straight')
    WeightMetric.seen.clear()
    train(folder)
    (best,) = (path.name for path in folder.glob('best*.pth'))
    return read_training_checkpoint(folder / 'iter_7.pth'), list(WeightMetric.seen), best


@pytest.mark.parametrize('signals', [[1], [2], [3, 4, 5], [6], [7], list(range(1, 8))], ids=str)
def test_stopped_and_resumed_equals_never_stopped(straight, tmp_path, signals):
    """Also at an iteration whose validation was still to come, which is made up for."""
    expected, scores, best = straight
    WeightMetric.seen.clear()
    hooks = MissedValidationHook(), SignalHook(set(signals))
    for number, iteration in enumerate(signals):
        with pytest.raises(StoppedError, match=f'SIGTERM: stopped after iteration {iteration}; '):
            train(tmp_path, *hooks, resume=number > 0)
        assert latest_training_checkpoint(tmp_path).name == f'iter_{iteration}.pth'
    train(tmp_path, *hooks, resume=True)
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
        train(tmp_path, SignalHook({4}), interval=2)
    assert latest_training_checkpoint(tmp_path).name == 'iter_4.pth'


def test_between_two_updates_it_goes_on_to_the_next(tmp_path):
    """The gradients collected by then would be lost."""
    train(tmp_path / 'straight', accumulative_counts=3)
    with pytest.raises(StoppedError, match='SIGTERM: stopped after iteration 6; '):
        train(tmp_path / 'run', SignalHook({4}), accumulative_counts=3)
    train(tmp_path / 'run', resume=True, accumulative_counts=3)
    weights = [
        read_training_checkpoint(tmp_path / name / 'iter_7.pth')['state_dict']['linear.weight']
        for name in ('straight', 'run')
    ]
    assert torch.equal(*weights)
