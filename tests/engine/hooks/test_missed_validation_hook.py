"""A run that dies in a validation makes it when it is resumed, and no other one twice."""

import pytest
from mmengine.hooks import Hook
from toy_run import WeightMetric, train

from mmsam.engine.hooks import MissedValidationHook
from mmsam.training_checkpoint import latest_training_checkpoint


class DyingHook(Hook):
    """Ends the run like a lost machine: in the validation behind an iteration, or in training."""

    def __init__(self, iteration: int, in_validation: bool) -> None:
        self.iteration = iteration
        self.in_validation = in_validation

    def after_val_iter(self, runner, *args, **kwargs) -> None:
        self._die(runner.iter, in_validation=True)

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        self._die(runner.iter, in_validation=False)

    def _die(self, iteration: int, in_validation: bool) -> None:
        if (iteration, in_validation) == (self.iteration, self.in_validation):
            raise OSError('lost')


@pytest.fixture(scope='module')
def scores(tmp_path_factory) -> list[float]:
    """Of the validations behind iterations 2, 4, 6 and 7."""
    WeightMetric.seen.clear()
    train(tmp_path_factory.mktemp('straight'))
    assert len(set(WeightMetric.seen)) == 4
    return list(WeightMetric.seen)


def die_and_resume(work_dir, iteration: int, in_validation: bool) -> list[float]:
    """Checkpoints are saved at 2, 4, 6 and 7; the scores of all validations."""
    WeightMetric.seen.clear()
    with pytest.raises(OSError, match='lost'):
        train(work_dir, MissedValidationHook(), DyingHook(iteration, in_validation), interval=2)
    assert latest_training_checkpoint(work_dir).name == f'iter_{iteration}.pth'
    train(work_dir, MissedValidationHook(), interval=2, resume=True)
    return list(WeightMetric.seen)


@pytest.mark.parametrize('iteration', [2, 4, 6, 7])
def test_a_validation_in_which_the_run_died_is_made(scores, tmp_path, iteration):
    assert die_and_resume(tmp_path, iteration, in_validation=True) == scores


@pytest.mark.parametrize('iteration', [2, 4, 6])
def test_one_with_a_new_best_score_is_not_made_again(scores, tmp_path, iteration):
    """Another one may be: nothing was written behind it."""
    done = scores[: iteration // 2]
    again = [] if done[-1] == max(done) else [done[-1]]
    found = die_and_resume(tmp_path, iteration, in_validation=False)
    assert found == [*done, *again, *scores[iteration // 2 :]]


def test_without_validation_none_is_made(tmp_path):
    with pytest.raises(OSError, match='lost'):
        train(tmp_path, MissedValidationHook(), DyingHook(4, in_validation=True), interval=2)
    WeightMetric.seen.clear()
    train(tmp_path, MissedValidationHook(), interval=2, resume=True, validates=False)
    assert WeightMetric.seen == []
