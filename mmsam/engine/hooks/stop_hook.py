"""Saves and ends a training that was asked to end by a signal."""

import signal

import torch
from mmengine.dist import all_reduce, broadcast_object_list
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmsam import stop_signal
from mmsam.engine.optim_wrappers import is_between_updates
from mmsam.errors import StoppedError
from mmsam.registry import HOOKS


@HOOKS.register_module()
class StopHook(Hook):
    """End after the iteration in which any rank got SIGTERM, SIGUSR1 or SIGINT (Ctrl-C).

    With ``accumulative_counts`` it is the next iteration that ends in an update. All ranks agree on
    it; its checkpoint is saved, where checkpoints are saved by iteration, and a run that resumes
    from it ends as one that was never stopped. A signal during a validation is followed after the
    iteration behind it. Without ``mmsam.stop_signal.listen`` signals do what they always do.

    Raises:
        StoppedError: the run is saved and has to end.
    """

    # after the schedulers' step, which belongs to the iteration, and after CheckpointHook is ready
    priority = 'LOWEST'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        got = stop_signal.received()
        number = torch.tensor(0 if got is None else int(got))
        if torch.cuda.is_available():
            number = number.cuda()
        all_reduce(number, op='max')
        if not number or is_between_updates(runner.optim_wrapper):
            return
        stop_signal.forget()
        done = runner.iter + 1
        saved: list[str | None] = [None]
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and not hook.by_epoch:
                hook._save_checkpoint(runner)
                saved = [hook.last_ckpt]
        # from the main process, which writes; a launcher would end it once another one has ended
        broadcast_object_list(saved)
        raise StoppedError(
            f'{signal.Signals(int(number)).name}: stopped after iteration {done}; '
            + (f'go on with --resume (saved as {saved[0]}).' if saved[0] else 'nothing was saved.')
        )
