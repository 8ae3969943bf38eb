"""Says which images made a loss or gradient infinite, and ends a training that diverges."""

import math
from collections import deque
from statistics import median

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsam.engine.optim_wrappers import is_between_updates
from mmsam.errors import DivergedError
from mmsam.options import check_whole_number
from mmsam.registry import HOOKS

_SPIKE = 10.0
"""A loss so many times above the median of the last ones is a spike."""

_SPIKE_WINDOW = 50
"""Iterations whose median counts."""


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Report each update that ``SAMOptimWrapper`` left out, with the images of its batches.

    These are several with ``accumulative_counts``, each with its loss. An update with a NaN or
    infinite gradient is never made, so weights and checkpoints stay finite. A loss ten times above
    the median of the last 50 gives a warning.

    Args:
        max_skipped: > 0; so many left out in a row end the training.

    Raises:
        ConfigError: ``max_skipped`` is no whole number, or less than 1.
        DivergedError: ``max_skipped`` updates in a row were left out.
    """

    def __init__(self, max_skipped: int = 10) -> None:
        check_whole_number('max_skipped of DivergenceHook', max_skipped, 1)
        self.max_skipped = max_skipped
        self._skipped = 0
        self._batches: list[str] = []  # since the last update
        self._losses: deque[float] = deque(maxlen=_SPIKE_WINDOW)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        loss = outputs['loss'].item() if outputs and 'loss' in outputs else math.nan
        self._batches.append(f'loss {loss:.4g} of {_names(data_batch)}')
        if not getattr(runner.optim_wrapper, 'step_was_skipped', False):
            if not is_between_updates(runner.optim_wrapper):
                self._skipped = 0
                self._batches.clear()
            self._warn_of_spike(runner, loss)
            return
        self._skipped += 1
        reports = all_gather_object('; '.join(self._batches))
        self._batches.clear()
        message = (
            f'Iteration {runner.iter + 1}: NaN or infinite gradient, update left out '
            f'({self._skipped} in a row): {"; ".join(reports)}.'
        )
        if self._skipped < self.max_skipped:
            runner.logger.error(message)
            return
        # only the main process has it
        last = all_gather_object(runner.message_hub.runtime_info.get('last_ckpt'))[0]
        advice = f'the last checkpoint is {last}' if last else 'no checkpoint was saved yet'
        raise DivergedError(
            f'{message} That is the limit (max_skipped of DivergenceHook); {advice}, its weights '
            'are finite. Try a lower learning rate, or look at these images.'
        )

    def _warn_of_spike(self, runner: Runner, loss: float) -> None:
        if len(self._losses) == _SPIKE_WINDOW and loss > _SPIKE * median(self._losses):
            runner.logger.warning(
                f'Iteration {runner.iter + 1}: loss {loss:.4g} is more than {_SPIKE:.0f} times the '
                f'median {median(self._losses):.4g} of the last {_SPIKE_WINDOW}.'
            )
        if math.isfinite(loss):
            self._losses.append(loss)


def _names(data_batch: dict | tuple | list | None) -> str:
    """The image files of a batch, where its samples have them."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    paths = [str(getattr(sample, 'img_path', 'an unnamed sample')) for sample in samples or ()]
    return ', '.join(paths) or 'a batch without names'
