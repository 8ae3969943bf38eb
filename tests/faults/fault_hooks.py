"""Hooks of the runs into which faults are injected; their configs import this module."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmsam.registry import HOOKS

PROGRESS = 'progress'


@HOOKS.register_module()
class DigestHook(Hook):
    """Append the digest of weights and optimizer to ``WORK_DIR/progress`` in each iteration.

    The line comes before the iteration is saved: as soon as the next line is there, so is the
    checkpoint.
    """

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        states = runner.optim_wrapper.optimizer.state_dict()['state']
        digest = sha256()
        tensors = [*model.state_dict().values()]
        tensors += [tensor for state in states.values() for tensor in state.values()]
        for tensor in tensors:
            digest.update(tensor.detach().numpy().tobytes())
        with (Path(runner.work_dir) / PROGRESS).open('a') as file:
            file.write(f'{runner.iter + 1} {digest.hexdigest()}\n')


@HOOKS.register_module()
class NaNBatches(Hook):
    """Make the images of these iterations (counted from 1) NaN."""

    def __init__(self, iterations: Sequence[int]) -> None:
        self.iterations = iterations

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        if runner.iter + 1 in self.iterations:
            data_batch['inputs'] = [
                torch.full(image.shape, float('nan')) for image in data_batch['inputs']
            ]
