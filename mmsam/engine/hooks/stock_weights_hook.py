"""Leaves the tuned weights in the layout that every SAM program opens."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmsam.checkpoint import read_state_dict, save_stock_weights
from mmsam.registry import HOOKS


@HOOKS.register_module()
class StockWeightsHook(Hook):
    """Write ``WORK_DIR/sam_<architecture>_tuned.pth`` at the end of training.

    It holds the best checkpoint's weights where one was kept, of several scores in ``save_best``
    that of the first, else the last ones, under upstream's keys and nothing else. With ``EMAHook``
    they are the averaged ones, which were validated. The name carries the architecture, from which
    some labelling tools read it. Models that are no whole SAM are left alone.
    """

    priority = 'LOWEST'  # after CheckpointHook wrote the last checkpoint

    @master_only
    def after_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'load_weights'):
            return
        best = _best_checkpoint(runner)
        if best is not None and Path(best).is_file():
            state_dict, origin = read_state_dict(str(best)), Path(best).name
        else:
            checkpoint = {'state_dict': model.state_dict()}
            runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)  # EMAHook's averages
            state_dict, origin = checkpoint['state_dict'], 'the last iteration'
        name = model.image_encoder.arch_name
        path = Path(runner.work_dir) / f'sam_{name + "_" if name else ""}tuned.pth'
        save_stock_weights(state_dict, path)
        runner.logger.info(f'Weights of {origin} for every SAM program: {path}')


def _best_checkpoint(runner: Runner) -> str | None:
    """Path of the best checkpoint by the first score of ``save_best``."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    scores: list[str] = next((hook.save_best for hook in hooks if hook.save_best), [])
    # mmengine names it by its score only where there are several
    suffix = f'_{scores[0]}' if len(scores) > 1 else ''
    return runner.message_hub.get_info(f'best_ckpt{suffix}')
