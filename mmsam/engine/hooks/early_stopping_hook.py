"""Ends a training whose score does not get better any more."""

import math
from typing import Any

from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsam.engine.optim_wrappers import is_between_updates
from mmsam.errors import ConfigError
from mmsam.registry import HOOKS
from mmsam.score_rules import check_rule, check_score, rule_of_score

_STATE = 'early_stopping'
"""In the message hub: the score that is watched, its best value, validations since then."""


@HOOKS.register_module()
class SAMEarlyStoppingHook(Hook):
    """End the training after so many validations in a row without a new best score.

    It is a normal end, with exit code 0: the last checkpoint is saved, and all that belongs to the
    end of a training is done. The validation of ``ZeroShotHook``, before the first iteration,
    counts as one. With ``accumulative_counts`` the training ends after the next update,
    a training by epochs at the end of that epoch.

    Differences to mmengine's: the state is saved, so that a resumed run ends where it would have
    ended without a stop, and one that has ended does not train on (unless ``patience`` is raised);
    a score that stays the same is no new best; the main process decides for all ranks.

    Args:
        monitor: the score, such as ``sam/mIoU``.
        rule: 'greater' or 'less'; None where it follows from the score's name.
        patience: > 0, validations without a new best.
        min_delta: >= 0; a new best has to be better by more than that.

    Raises:
        ConfigError: a wrong option, or no validation gives that score.
    """

    # before CheckpointHook, which saves the state with a new best score
    priority = 'LOW'

    def __init__(
        self, monitor: str, rule: str | None = None, patience: int = 5, min_delta: float = 0.0
    ) -> None:
        check_rule('SAMEarlyStoppingHook', monitor, rule)
        if patience < 1 or min_delta < 0:
            raise ConfigError(
                'SAMEarlyStoppingHook: expected patience > 0 and min_delta >= 0, '
                f'got {patience} and {min_delta}.'
            )
        self.monitor = monitor
        self.sign = 1 if (rule or rule_of_score(monitor)) == 'greater' else -1
        self.patience = patience
        self.min_delta = min_delta
        self._state: dict[str, Any] | None = None  # None outside of a training

    def before_train(self, runner: Runner) -> None:
        state = runner.message_hub.runtime_info.get(_STATE, {})
        if state.get('monitor') != self.monitor:
            state = {'monitor': self.monitor, 'best': -self.sign * math.inf, 'waited': 0}
        self._state = dict(state)
        self._end_if_over(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._state is None:
            return
        check_score('monitor of SAMEarlyStoppingHook', self.monitor, metrics or {})
        scores = [float((metrics or {})[self.monitor])]
        broadcast_object_list(scores)
        if self.sign * (scores[0] - self._state['best']) > self.min_delta:
            self._state.update(best=scores[0], waited=0)
        else:
            self._state['waited'] += 1
        runner.message_hub.update_info(_STATE, dict(self._state))
        self._end_if_over(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        self._end_if_over(runner)

    def after_train(self, runner: Runner) -> None:
        self._state = None

    def _end_if_over(self, runner: Runner) -> None:
        state = self._state
        if state is None or state['waited'] < self.patience or runner.train_loop.stop_training:
            return
        if runner.iter and is_between_updates(runner.optim_wrapper):
            return
        runner.train_loop.stop_training = True
        runner.logger.info(
            f'The training ends early: {self.monitor} was not better than {state["best"]:.4f} in '
            f'the last {state["waited"]} validations.'
        )
