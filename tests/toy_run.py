"""A training of a toy model that takes milliseconds, in this process."""

import itertools
from pathlib import Path
from typing import ClassVar

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from mmsam.engine import SAMRunner

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
    seen: ClassVar[list[float]] = []

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict[str, float]:
        self.seen.append(float(self.model.linear.weight.detach().sum()))
        return {'score': self.seen[-1]}


_NAMES = itertools.count()


def train(
    work_dir: Path,
    *hooks: Hook,
    resume: bool = False,
    interval: int = 100,
    accumulative_counts: int = 1,
    validates: bool = True,
    by_epoch: bool = False,
) -> None:
    """``MAX_ITERS`` iterations, with a validation after each second one and after the last.

    Or, by epoch, three of three iterations each, with a validation and a checkpoint of each.
    """
    torch.manual_seed(0)
    data = [{'inputs': torch.randn(3), 'data_samples': None} for _ in range(5)]
    model = ToyModel()
    validation = dict(
        val_dataloader=dict(
            dataset=data, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        val_cfg=dict(),
        val_evaluator=Evaluator(WeightMetric(model)),
    )
    runner = SAMRunner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data,
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler' if by_epoch else 'SeededInfiniteSampler'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3)
        if by_epoch
        else dict(by_epoch=False, max_iters=MAX_ITERS, val_interval=2),
        optim_wrapper=dict(
            optimizer=dict(type='Adam', lr=0.1), accumulative_counts=accumulative_counts
        ),
        default_hooks=dict(
            checkpoint=dict(
                type='SAMCheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else interval,
                save_best='toy/score', rule='greater',
            )
        ),
        log_processor=dict(by_epoch=by_epoch),
        log_level='ERROR',
        default_scope='mmsam',
        randomness=dict(seed=3),
        experiment_name=f'toy_{next(_NAMES)}',
        resume=resume,
        **(validation if validates else {}),
    )  # fmt: skip
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
