"""Puts the loss of a config into the model, and exchanges it on schedule."""

from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from torch import nn

from mmsam.engine.model_parts import unwrapped
from mmsam.errors import ConfigError
from mmsam.registry import HOOKS, MODELS


@HOOKS.register_module()
class MaskLossHook(Hook):
    """Install a loss into the model's slot ``mask_loss``, and others from given iterations on.

    All losses are built at once, so that a mistake in the last one shows before the first
    iteration. They are installed after weights were loaded or a run resumed; a resumed run gets the
    loss of its iteration. A loss may hold neither parameters nor buffers: it would not be in the
    optimizer, and checkpoints would no longer have the model's own keys.

    Args:
        loss: config of the loss from iteration 0 on.
        schedule: ``dict(iteration=n, loss=config)`` each: from the iteration that follows n
            updates, that loss is used. The iterations are at least 1 and increase.

    Raises:
        ConfigError: a loss cannot be built or holds state; the schedule is not as described; or,
            before training, the model has no slot ``mask_loss``.
    """

    def __init__(self, loss: dict, schedule: list[dict] | None = None) -> None:
        self._stages = [(0, _build_loss(loss, 'loss'))]
        for index, entry in enumerate(schedule or []):
            where = f'schedule[{index}]'
            if not isinstance(entry, dict) or set(entry) != {'iteration', 'loss'}:
                raise ConfigError(
                    f'MaskLossHook: {where} expects dict(iteration=..., loss=...), got {entry!r}.'
                )
            iteration = entry['iteration']
            previous = self._stages[-1][0]
            if not isinstance(iteration, int) or iteration <= previous:
                raise ConfigError(
                    f'MaskLossHook: {where}.iteration expects an integer above {previous}, '
                    f'got {iteration!r}.'
                )
            self._stages.append((iteration, _build_loss(entry['loss'], f'{where}.loss')))

    def before_train(self, runner: Runner) -> None:
        """Install the loss of the current iteration, 0 or where the run was resumed."""
        if not hasattr(unwrapped(runner.model), 'mask_loss'):
            raise ConfigError(
                'MaskLossHook expects a model with an attribute mask_loss, '
                f'got {type(unwrapped(runner.model)).__name__}.'
            )
        self._install(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None
    ) -> None:
        """Exchange the loss where the schedule says so."""
        self._install(runner)

    def _install(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        loss = [loss for iteration, loss in self._stages if iteration <= runner.iter][-1]
        if model.mask_loss is not loss:
            model.mask_loss = loss
            runner.logger.info(f'Mask loss from iteration {runner.iter} on: {loss}')


def _build_loss(config: dict, where: str) -> nn.Module:
    try:
        loss = MODELS.build(config)
    except (KeyError, TypeError) as error:
        reason = error.args[0] if error.args else error
        raise ConfigError(f'MaskLossHook cannot build {where}={config}: {reason}') from error
    if not isinstance(loss, nn.Module):
        raise ConfigError(f'MaskLossHook: {where} expects an nn.Module, got {type(loss).__name__}.')
    state = [name for name, _ in [*loss.named_parameters(), *loss.named_buffers()]]
    if state:
        raise ConfigError(
            f'MaskLossHook: {where} expects a loss without parameters and buffers, '
            f'got {type(loss).__name__} with {", ".join(state)}.'
        )
    return loss
