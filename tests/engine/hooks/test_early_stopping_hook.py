"""On a toy training of 7 iterations with validations after 2, 4, 6 and 7."""

import pytest
from toy_run import WeightMetric, train

from mmsam.engine.hooks import MissedValidationHook, SAMEarlyStoppingHook, early_stopping_hook
from mmsam.errors import ConfigError
from mmsam.training_checkpoint import latest_training_checkpoint, read_training_checkpoint


def script(monkeypatch, *scores: float) -> list[float]:
    """Let the validations have these scores; returns those that are still to come."""
    coming = list(scores)
    monkeypatch.setattr(
        WeightMetric, 'compute_metrics', lambda self, results: {'score': coming.pop(0)}
    )
    return coming


def watching(**options) -> SAMEarlyStoppingHook:
    return SAMEarlyStoppingHook(**{'monitor': 'toy/score', 'rule': 'greater', **options})


def last_of(work_dir) -> str:
    return latest_training_checkpoint(work_dir).name


@pytest.mark.parametrize(
    ('options', 'scores', 'last'),
    [
        (dict(patience=1), [0.5, 0.4], 4),
        (dict(patience=1), [0.5, 0.5], 4),  # the same again is not better
        (dict(patience=2), [0.5, 0.4, 0.45], 6),
        (dict(patience=2), [0.5, 0.4, 0.6, 0.5], 7),
        (dict(patience=1, rule='less'), [0.5, 0.4, 0.45], 6),
        (dict(patience=1, min_delta=0.2), [0.1, 0.4, 0.5], 6),
        (dict(patience=1), [0.5, float('nan')], 4),
    ],
)
def test_it_ends_after_validations_without_a_new_best(tmp_path, monkeypatch, options, scores, last):
    coming = script(monkeypatch, *scores)
    train(tmp_path, watching(**options))
    assert coming == []
    assert last_of(tmp_path) == f'iter_{last}.pth'  # saved by nothing else


def test_the_end_belongs_to_the_update_that_follows(tmp_path, monkeypatch):
    """Updates after 3, 6 and 7; after 4 it is decided."""
    script(monkeypatch, 0.5, 0.4, 0.3)
    train(tmp_path, watching(patience=1), accumulative_counts=3)
    assert last_of(tmp_path) == 'iter_6.pth'


def test_by_epoch(tmp_path, monkeypatch):
    script(monkeypatch, 0.5, 0.4)
    train(tmp_path, watching(patience=1), by_epoch=True)
    assert last_of(tmp_path) == 'epoch_2.pth'


class Lost(MissedValidationHook):
    """The machine is lost before an iteration, or at the start of the validation before it."""

    def __init__(self, iteration: int, in_validation: bool) -> None:
        self.iteration, self.in_validation = iteration, in_validation

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        super().before_train_iter(runner, *args, **kwargs)
        self._lose(runner, in_validation=False)

    def before_val_epoch(self, runner) -> None:
        super().before_val_epoch(runner)
        self._lose(runner, in_validation=True)

    def _lose(self, runner, in_validation) -> None:
        if (runner.iter, in_validation) == (self.iteration, self.in_validation):
            raise OSError('lost')


@pytest.mark.parametrize(
    ('iteration', 'in_validation', 'before', 'after'),
    [
        (2, True, [], [0.5, 0.4, 0.3]),
        (2, False, [0.5], [0.4, 0.3]),  # behind a new best score a checkpoint was saved
        (4, True, [0.5], [0.4, 0.3]),
        (4, False, [0.5, 0.4], [0.4, 0.3]),
        (6, True, [0.5, 0.4], [0.3]),
    ],
)
def test_a_resumed_run_ends_where_it_would_have_ended(
    tmp_path, monkeypatch, iteration, in_validation, before, after
):
    """Checkpoints are saved at 2, 4 and 6; a validation that is in none of them is made again."""
    script(monkeypatch, *before)
    with pytest.raises(OSError, match='lost'):
        train(tmp_path, Lost(iteration, in_validation), watching(patience=2), interval=2)
    coming = script(monkeypatch, *after)
    train(tmp_path, MissedValidationHook(), watching(patience=2), interval=2, resume=True)
    assert coming == []
    assert last_of(tmp_path) == 'iter_6.pth'
    end = read_training_checkpoint(tmp_path / 'iter_6.pth')
    state = end['message_hub']['runtime_info']['early_stopping']
    assert state == {'monitor': 'toy/score', 'best': 0.5, 'waited': 2}


def test_a_run_that_has_ended_goes_on_with_more_patience_only(tmp_path, monkeypatch):
    script(monkeypatch, 0.5, 0.4)
    train(tmp_path, MissedValidationHook(), watching(patience=1))
    train(tmp_path, MissedValidationHook(), watching(patience=1), resume=True)
    assert last_of(tmp_path) == 'iter_4.pth'
    script(monkeypatch, 0.3, 0.2)
    train(tmp_path, MissedValidationHook(), watching(patience=9), resume=True)
    assert last_of(tmp_path) == 'iter_7.pth'


def test_the_main_process_decides(tmp_path, monkeypatch):
    script(monkeypatch, 0.5, 0.6, 0.7, 0.8)
    monkeypatch.setattr(
        early_stopping_hook, 'broadcast_object_list', lambda scores: scores.__setitem__(0, 0.1)
    )
    train(tmp_path, watching(patience=1))
    assert last_of(tmp_path) == 'iter_4.pth'


def test_options_that_are_wrong(tmp_path):
    for options in (dict(patience=0), dict(min_delta=-1), dict(rule='max'), dict(rule=None)):
        with pytest.raises(ConfigError, match='SAMEarlyStoppingHook'):
            watching(**options)
    with pytest.raises(ConfigError, match="validation, toy/score; got 'sam/mIoU'"):
        train(tmp_path, watching(monitor='sam/mIoU'))
