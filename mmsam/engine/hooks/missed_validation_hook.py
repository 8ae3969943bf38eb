"""Makes the validation that a run owed when it was stopped or killed."""

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmsam.registry import HOOKS

_DUE = 'due_validation'
"""In the message hub: a validation comes next, and has not ended. Names with 'val' are logged."""


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Let a resumed run begin with the validation that follows the iteration of its checkpoint.

    A checkpoint is written before the validation of the same iteration; a run that ended in
    between would otherwise leave it out, at the last iteration for ever. Where that validation was
    a new best one, the checkpoint has been written again behind it and owes nothing; else a resumed
    run makes it once more, as nothing says that it was completed.

    Only of loops by iteration; those by epoch are left to mmengine.
    """

    # before_train: behind CheckpointHook, which has to be ready for a new best score
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        if runner.message_hub.runtime_info.get(_DUE) and runner.val_loop is not None:
            runner.logger.info(f'The validation of iteration {runner.iter} comes first:')
            runner.val_loop.run()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        """Note it for any checkpoint of this iteration."""
        runner.message_hub.update_info(_DUE, _is_validation_due(runner, runner.iter + 1))

    def before_val_epoch(self, runner: Runner) -> None:
        """Not due for the checkpoints of this validation, which are saved at its end."""
        runner.message_hub.update_info(_DUE, False)


def owe_validation(runner: Runner) -> None:
    """Note that the validation of the last iteration is due, for a run that leaves it."""
    runner.message_hub.update_info(_DUE, True)


def _is_validation_due(runner: Runner, done: int) -> bool:
    loop = runner.train_loop
    if runner.val_loop is None or not isinstance(loop, IterBasedTrainLoop):
        return False
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == loop.max_iters)
