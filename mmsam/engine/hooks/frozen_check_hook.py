"""Ends a training that changes what is frozen."""

from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from mmsam.checkpoint import show_keys
from mmsam.engine.agreement import raised_by_all
from mmsam.engine.model_parts import part_of, trained_parts, unwrapped
from mmsam.engine.optim_wrappers import is_between_updates
from mmsam.engine.tensor_digest import tensor_digest
from mmsam.errors import ConfigError
from mmsam.registry import HOOKS


@HOOKS.register_module()
class FrozenCheckHook(Hook):
    """Check after the first update, and at the end, that frozen tensors are what they were.

    Frozen are all parameters that do not train, and the buffers of parts (children of the model)
    in which none does, such as the statistics of BatchNorm. Such a part must not drop anything at
    random either: its Dropout and DropPath have to be in eval mode.

    Digests are compared, computed where the tensors lie. A resumed run is checked again.

    Raises:
        ConfigError: after the first update or the training, the same on all ranks; it names the
            tensors or modules.
    """

    def __init__(self) -> None:
        self._digests: dict[str, int] = {}
        self._is_checked = False

    def before_train(self, runner: Runner) -> None:
        """Remember what the frozen tensors are, after loading or resuming."""
        self._digests = _frozen_digests(unwrapped(runner.model))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        """Compare once there was an update."""
        if self._is_checked or is_between_updates(runner.optim_wrapper):
            return
        self._is_checked = True
        model = unwrapped(runner.model)
        with raised_by_all():
            self._compare(model, f'iteration {runner.iter + 1}')
            dropping = _dropping_modules(model)
            if dropping:
                raise ConfigError(
                    f'Frozen parts must be in eval mode, but {show_keys(dropping)} '
                    f'drops at random in iteration {runner.iter + 1}: call eval() on the part in '
                    'the train() of the model.'
                )

    def after_train(self, runner: Runner) -> None:
        """Compare again."""
        with raised_by_all():
            self._compare(unwrapped(runner.model), 'the end of the training')

    def _compare(self, model: nn.Module, when: str) -> None:
        digests = _frozen_digests(model)
        names = [name for name, digest in self._digests.items() if digests.get(name) != digest]
        if names:
            raise ConfigError(
                f'Frozen tensors must not change, but {len(names)} did by {when}: '
                f'{show_keys(names)}. Statistics of BatchNorm change in train mode: call '
                'eval() on a frozen part in the train() of the model; weights change if something '
                'else writes to them, such as a hook.'
            )


def _frozen_digests(model: nn.Module) -> dict[str, int]:
    parts = trained_parts(model)
    tensors: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    tensors |= {n: b for n, b in model.named_buffers() if not parts.get(part_of(n), True)}
    # asked for all at once, then waited for
    digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    return {name: int(digest) for name, digest in digests.items()}


def _dropping_modules(model: nn.Module) -> list[str]:
    parts = trained_parts(model)
    return [
        name
        for name, module in model.named_modules()
        if module.training and _drops(module) and not parts.get(part_of(name), True)
    ]


def _drops(module: nn.Module) -> bool:
    if type(module).__name__ == 'DropPath':  # mmcv's, whose import prints, or timm's
        return bool(module.drop_prob)
    return isinstance(module, _DropoutNd) and module.p > 0
