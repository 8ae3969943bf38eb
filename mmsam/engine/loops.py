"""Validation and test in bfloat16 mixed precision."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from mmsam.registry import LOOPS


@contextmanager
def _bfloat16_by_default() -> Iterator[None]:
    """Mixed precision on GPUs is in bfloat16, as on CPUs; mmengine's loops take the default."""
    default = torch.get_autocast_dtype('cuda')
    torch.set_autocast_dtype('cuda', torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_dtype('cuda', default)


class _BFloat16Loop(BaseLoop):
    """What both loops do; beside ``ValLoop`` or ``TestLoop``.

    With ``fp16=True``, mmengine's own predict in float16 on GPUs, in which SAM's large encoders
    overflow.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16=True)

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """As mmengine's."""
        with _bfloat16_by_default():
            super().run_iter(idx, data_batch)


@LOOPS.register_module()
class BFloat16ValLoop(_BFloat16Loop, ValLoop):
    """mmengine's validation, predictions in bfloat16 autocast on GPU and CPU.

    Args: as mmengine's ``ValLoop``, without ``fp16``.
    """


@LOOPS.register_module()
class BFloat16TestLoop(_BFloat16Loop, TestLoop):
    """mmengine's test, predictions in bfloat16 autocast on GPU and CPU.

    Args: as mmengine's ``TestLoop``, without ``fp16``.
    """
