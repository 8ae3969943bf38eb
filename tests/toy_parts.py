"""A training of a toy model of two parts that takes milliseconds, in this process."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsam.engine import SAMRunner
from mmsam.structures import SAMDataSample


class TwoParts(BaseModel):
    """Logits (B, 1, 4, 4) of images (B, 3): ``decoder(encoder(image))``; the loss is their MSE.

    ``decoder.spare`` is a layer that nothing uses. Tests exchange parts and override ``loss_of``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 8)
        self.decoder = nn.ModuleDict(dict(head=nn.Linear(8, 16), spare=nn.Linear(2, 2)))

    def features_of(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def loss_of(self, logits: Tensor, objects: Tensor) -> Tensor:
        """The loss of logits (B, 1, 4, 4) and numbers of objects (B,), 0 without objects."""
        return ((logits.sigmoid() - 1).square().mean((1, 2, 3)) * objects).sum()

    def forward(self, inputs, data_samples=None, mode='loss'):
        features = self.features_of(torch.stack(list(inputs)))
        logits = self.decoder['head'](features).float().unflatten(1, (1, 4, 4))
        objects = torch.tensor([len(sample.gt_instances) for sample in data_samples])
        return {'loss': self.loss_of(logits, objects)}


_NAMES = itertools.count()


def train_parts(
    work_dir: Path,
    model: nn.Module,
    *hooks: Hook | dict,
    objects: Sequence[int] = (1, 1, 1),
    resume: bool = False,
    **optim_wrapper,
) -> SAMRunner:
    """One image an iteration, with so many objects, in their order; a checkpoint after each.

    Args:
        hooks: as ``custom_hooks``.
        objects: of each iteration.
        optim_wrapper: options of ``SAMOptimWrapper``; the optimizer is Adam unless it is given.
    """
    data = [
        {
            'inputs': torch.full((3,), float(number)),
            'data_samples': SAMDataSample(
                gt_instances=InstanceData(labels=torch.zeros(count, dtype=torch.int64))
            ),
        }
        for number, count in enumerate(objects, start=1)
    ]
    runner = SAMRunner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=1, num_workers=0,
            sampler=dict(type='SeededInfiniteSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=False, max_iters=len(objects)),
        optim_wrapper=dict(
            dict(
                type='SAMOptimWrapper', optimizer=dict(type='Adam', lr=0.01, fused=True),
                constructor='TrainableParamsConstructor',
            ),
            **optim_wrapper,
        ),
        default_hooks=dict(
            checkpoint=dict(type='SAMCheckpointHook', by_epoch=False, interval=1)
        ),
        custom_hooks=list(hooks),
        log_processor=dict(by_epoch=False),
        default_scope='mmsam',
        resume=resume,
        experiment_name=f'toy_parts_{next(_NAMES)}',
    )  # fmt: skip
    runner.train()
    return runner


def log_of(work_dir: Path) -> str:
    """What all starts of a run logged."""
    return '\n'.join(path.read_text() for path in sorted(work_dir.glob('*/*.log')))
