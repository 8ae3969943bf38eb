"""A signal at any iteration costs nothing: stopped and resumed equals never stopped."""

import pytest
import torch
from mmengine.hooks import EMAHook
from toy_run import WeightMetric, train

from mmsam import stop_signal
from mmsam.engine import SAMRunner, runner
from mmsam.engine.hooks import MissedValidationHook, StopHook, stop_hook
from mmsam.errors import StoppedError, StorageError
from mmsam.training_checkpoint import latest_training_checkpoint, read_training_checkpoint


class SignalHook(StopHook):
    """A StopHook to which a signal comes in chosen iterations (counted from 1)."""

    def __init__(self, signals: set[int], in_validation: bool = False) -> None:
        super().__init__()
        self.signals = signals
        self.in_validation = in_validation

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if not self.in_validation:
            self._signal_in(runner.iter + 1)
        super().after_train_iter(runner, *args, **kwargs)

    def after_val_iter(self, runner, batch_idx, *args, **kwargs) -> None:
        if self.in_validation and batch_idx == 1:
            self._signal_in(runner.iter)
        super().after_val_iter(runner, batch_idx, *args, **kwargs)

    def _signal_in(self, iteration) -> None:
        if iteration in self.signals:
            self.signals.remove(iteration)
            stop_signal._remember(15, None)


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
    assert WeightMetric.seen == scores
    assert_same(read_training_checkpoint(tmp_path / 'iter_7.pth'), expected)
    assert [path.name for path in tmp_path.glob('best*.pth')] == [best]


def assert_same(final, expected):
    assert final.keys() == expected.keys()
    for part in ('state_dict', 'ema_state_dict'):
        for key, value in expected.get(part, {}).items():
            assert torch.equal(final[part][key], value)
    for index, state in expected['optimizer']['state'].items():
        for key, value in state.items():
            assert torch.equal(final['optimizer']['state'][index][key], value)


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


# ------------------------------------------------------------------------------- in validations


@pytest.fixture
def each_second_batch(monkeypatch):
    """Of five: there the ranks look for a signal."""
    monkeypatch.setattr(stop_hook, 'VALIDATION_BATCHES', 2)


@pytest.mark.parametrize('averaged', [False, True])
@pytest.mark.parametrize('signals', [[2], [4, 6], [7]], ids=str)
def test_stopped_in_a_validation_and_resumed(each_second_batch, tmp_path, signals, averaged):
    """EMAHook has its averages in place of the weights there."""

    def hooks() -> list:
        return [EMAHook(momentum=0.2)] if averaged else []

    WeightMetric.seen.clear()
    train(tmp_path / 'straight', *hooks())
    scores = list(WeightMetric.seen)
    WeightMetric.seen.clear()
    own = MissedValidationHook(), SignalHook(set(signals), in_validation=True)
    for number, iteration in enumerate(signals):
        stopped = f'SIGTERM: stopped in the validation of iteration {iteration}; '
        with pytest.raises(StoppedError, match=stopped) as end:
            train(tmp_path / 'run', *own, *hooks(), resume=number > 0)
        assert end.value.exit_code == 75
        assert latest_training_checkpoint(tmp_path / 'run').name == f'iter_{iteration}.pth'
    train(tmp_path / 'run', *own, *hooks(), resume=True)
    assert WeightMetric.seen == scores
    final, expected = (
        read_training_checkpoint(tmp_path / name / 'iter_7.pth') for name in ('run', 'straight')
    )
    assert ('ema_state_dict' in final) == averaged
    assert_same(final, expected)


def test_a_checkpoint_from_before_the_validation_is_enough(
    each_second_batch, tmp_path, monkeypatch
):
    saved = []
    save = SAMRunner.save_checkpoint
    monkeypatch.setattr(
        SAMRunner,
        'save_checkpoint',
        lambda self, folder, filename, **rest: (
            saved.append(filename) or save(self, folder, filename, **rest)
        ),
    )
    with pytest.raises(StoppedError, match='saved as .*iter_4.pth'):
        train(tmp_path, MissedValidationHook(), SignalHook({4}, in_validation=True), interval=4)
    assert saved.count('iter_4.pth') == 1


def test_in_the_validation_with_which_a_run_begins(each_second_batch, tmp_path):
    """It has come no further: a job that is started again for 75 would do so for ever."""
    own = MissedValidationHook(), SignalHook({4}, in_validation=True)
    with pytest.raises(StoppedError):
        train(tmp_path, *own)
    own[1].signals = {4}
    with pytest.raises(StoppedError, match='nothing was saved since .*iter_4.pth') as end:
        train(tmp_path, *own, resume=True)
    assert end.value.exit_code == 128 + 15


def test_between_two_updates_a_validation_is_finished(each_second_batch, tmp_path):
    with pytest.raises(StoppedError, match='SIGTERM: stopped after iteration 6; '):
        train(tmp_path, SignalHook({4}, in_validation=True), accumulative_counts=3)


def test_the_ranks_look_only_where_all_have_a_batch(each_second_batch, tmp_path, monkeypatch):
    """Another rank has three of them; its fourth exchange would be another one."""
    looked = []
    after_val_iter = StopHook.after_val_iter

    def note(self, runner, batch_idx, *args, **kwargs):
        exchanges.clear()
        after_val_iter(self, runner, batch_idx, *args, **kwargs)
        looked.append((batch_idx, len(exchanges)))

    exchanges = []
    monkeypatch.setattr(StopHook, 'after_val_iter', note)
    monkeypatch.setattr(
        stop_hook, 'all_reduce', lambda n, op: exchanges.append(n) or (op == 'min' and n.fill_(3))
    )
    train(tmp_path, StopHook())
    assert looked[:5] == [(0, 0), (1, 1), (2, 0), (3, 0), (4, 0)]


# ------------------------------------------------------------------------- what cannot be saved


def test_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch):
    """The training would go on without it; the end is another matter."""
    save = runner.save_training_checkpoint

    def fail(content, path):
        if path.name == 'iter_5.pth':
            raise StorageError(f'{path} cannot be written: no room.')
        save(content, path)

    monkeypatch.setattr(runner, 'save_training_checkpoint', fail)
    with pytest.raises(StorageError) as end:
        train(tmp_path, SignalHook({5}), interval=2)
    assert str(end.value) == (
        'SIGTERM: stopped after iteration 5, but iter_5.pth cannot be written; the last good one: '
        f'{tmp_path / "iter_4.pth"}.'
    )


def test_checkpoints_by_epoch(tmp_path):
    """Each has three iterations; only a start that has completed one has come on."""
    with pytest.raises(StoppedError, match='since the start, the latest checkpoint: none') as end:
        train(tmp_path, SignalHook({2}), by_epoch=True)
    assert end.value.exit_code == 143
    with pytest.raises(StoppedError, match='last saved: .*epoch_1.pth') as end:
        train(tmp_path, SignalHook({5}), by_epoch=True)
    assert end.value.exit_code == 75
    with pytest.raises(StoppedError, match='since the start, .* .*epoch_1.pth') as end:
        train(tmp_path, SignalHook({5}), by_epoch=True, resume=True)
    assert end.value.exit_code == 143
