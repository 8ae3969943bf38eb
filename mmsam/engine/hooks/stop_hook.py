"""Saves and ends a training that was asked to end by a signal."""

import signal
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.dist import all_reduce, broadcast_object_list
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmsam import stop_signal
from mmsam.engine.agreement import raised_by_all
from mmsam.engine.hooks.checkpoint_hook import latest_in_work_dir
from mmsam.engine.hooks.missed_validation_hook import owe_validation
from mmsam.engine.optim_wrappers import is_between_updates
from mmsam.errors import StoppedError, StorageError
from mmsam.registry import HOOKS

VALIDATION_BATCHES = 10
"""In a validation the ranks look for a signal each time after so many batches; looking takes an
exchange, in which they wait for each other."""


@HOOKS.register_module()
class StopHook(Hook):
    """End after the iteration in which any rank got SIGTERM, SIGUSR1 or SIGINT (Ctrl-C).

    With ``accumulative_counts`` it is the next iteration that ends in an update. All ranks agree on
    it; its checkpoint is saved, where checkpoints are saved by iteration, and a run that resumes
    from it ends as one that was never stopped. Without ``mmsam.stop_signal.listen`` signals do what
    they always do.

    A validation of a loop by iteration ends too, at one of every ``VALIDATION_BATCHES`` batches;
    ``MissedValidationHook`` makes it again on resume. Other validations are finished before.

    A run that has saved anything since its start ends with 75, so that a job that is started again
    for that code comes on each time. One that has not, because checkpoints are saved by epoch or it
    was still in the validation with which it began, ends with 128 + the signal's number, as if the
    signal had killed it.

    Raises:
        StoppedError: the run has to end.
        StorageError: it has to end, and its checkpoint could not be saved.
    """

    # after the schedulers' step, which belongs to the iteration, and after CheckpointHook is ready
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._has_trained = False
        self._validation_batches = 0

    def before_run(self, runner: Runner) -> None:
        self._has_trained = False

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        self._has_trained = True
        number = _signal_of_any_rank()
        if number is not None and not is_between_updates(runner.optim_wrapper):
            self._end(runner, number, f'stopped after iteration {runner.iter + 1}')

    def before_val_epoch(self, runner: Runner) -> None:
        count = torch.tensor(len(runner.val_dataloader))
        self._validation_batches = _agreed(count, 'min')  # a sampler may give one rank more

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        done = batch_idx + 1
        if done % VALIDATION_BATCHES or done > self._validation_batches:
            return
        number = _signal_of_any_rank()
        if (
            number is None
            or not isinstance(runner.train_loop, IterBasedTrainLoop)
            or is_between_updates(runner.optim_wrapper)
        ):
            return
        iteration = runner.iter
        _leave_validation(runner)
        self._end(runner, number, f'stopped in the validation of iteration {iteration}')

    def _end(self, runner: Runner, number: signal.Signals, stopped: str) -> None:
        """Save the iteration whose number, from 0, is ``runner.iter``, and end."""
        stop_signal.forget()
        stopped = f'{number.name}: {stopped}'
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        for hook in hooks:
            if self._has_trained and not hook.by_epoch:
                saved = _save(runner, hook, stopped)
                raise StoppedError(f'{stopped}; go on with --resume (saved as {saved}).')
        for hook in hooks:
            if last := _last_checkpoint(hook):
                raise StoppedError(f'{stopped}; go on with --resume (last saved: {last}).')
        error = StoppedError(
            f'{stopped}; nothing was saved since the start, the latest checkpoint: '
            f'{latest_in_work_dir(runner) or "none"}.'
        )
        error.exit_code = 128 + number
        raise error


def _signal_of_any_rank() -> signal.Signals | None:
    got = stop_signal.received()
    number = _agreed(torch.tensor(0 if got is None else int(got)), 'max')
    return signal.Signals(number) if number else None


def _agreed(number: torch.Tensor, how: str) -> int:
    if torch.cuda.is_available():
        number = number.cuda()
    all_reduce(number, op=how)
    return int(number)


def _leave_validation(runner: Runner) -> None:
    """Make the run what it was when the iteration before the validation had just been made."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.after_val_epoch(runner)  # the weights, in place of the averaged ones
    runner.train_loop._iter -= 1  # not counted yet
    owe_validation(runner)


def _save(runner: Runner, hook: CheckpointHook, stopped: str) -> str:
    """Save this iteration, unless the hook has just done so; the path of its checkpoint.

    Raises:
        StorageError: it cannot be written.
    """
    name = hook.filename_tmpl.format(runner.iter + 1)
    last = _last_checkpoint(hook)
    if last is None or Path(last).name != name:
        with raised_by_all():
            hook._save_checkpoint(runner)
        last = _last_checkpoint(hook)
    if last is None or Path(last).name != name:  # a hook may go on without it
        raise StorageError(
            f'{stopped}, but {name} cannot be written; the last good one: '
            f'{latest_in_work_dir(runner) or "none"}.'
        )
    return last


def _last_checkpoint(hook: CheckpointHook) -> str | None:
    """What a hook has saved last since the start; the main process, which writes, knows it."""
    last = [hook.last_ckpt]
    broadcast_object_list(last)
    return last[0]
