"""Lets a run read embeddings of its frozen image encoder in place of images."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsam.engine.embedding_build import use_embeddings
from mmsam.registry import HOOKS


@HOOKS.register_module()
class EmbeddingCacheHook(Hook):
    """Have the images of a run encoded once; ``SAMRunner`` adds it for ``embedding_cache``.

    A training computes what its own and its validation's samples miss, before the first validation
    and iteration. A validation or a test alone does so for its samples, each time it begins, as its
    weights may be others. See ``use_embeddings`` for the errors, and ``mmsam.embedding_cache``.

    Args:
        folder: of the caches of all encoders; in a distributed run on a disk that all share.
    """

    # before all that validates or looks at data
    priority = 'VERY_HIGH'

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        loaders = {'train_dataloader': runner.train_dataloader}
        if runner.val_loop is not None:
            loaders['val_dataloader'] = runner.val_dataloader
        use_embeddings(runner, self._folder, loaders)
        self._is_training = True

    def before_val(self, runner: Runner) -> None:
        if not self._is_training:
            use_embeddings(runner, self._folder, {'val_dataloader': runner.val_dataloader})

    def before_test(self, runner: Runner) -> None:
        use_embeddings(runner, self._folder, {'test_dataloader': runner.test_dataloader})

    def after_train(self, runner: Runner) -> None:
        self._is_training = False
