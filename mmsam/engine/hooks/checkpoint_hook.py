"""mmengine's CheckpointHook with an order of steps in which nothing good is ever lost."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmsam.engine.agreement import raised_by_all
from mmsam.engine.optim_wrappers import is_between_updates
from mmsam.engine.random_state import random_states, set_random_state
from mmsam.errors import ConfigError, StorageError
from mmsam.registry import HOOKS
from mmsam.score_rules import RULES, check_score, rule_of_score
from mmsam.training_checkpoint import (
    name_latest,
    remove_training_checkpoint,
    training_checkpoints,
)


@HOOKS.register_module()
class SAMCheckpointHook(CheckpointHook):
    """Save checkpoints, keep the latest and the best.

    Differences to mmengine's:

    - ``last_checkpoint`` names a new file once that is complete, and only then older ones are
      deleted; the best one so far is deleted once the new best is complete.
    - The random states of all ranks are saved, and set again in the first iteration after a resume.
    - With ``accumulative_counts`` a checkpoint by iteration waits for the next update: gradients
      are in no file, and a run that goes on from it loses none. The best one does not wait: it is
      no file to go on from.
    - The best one so far is found again where the work dir was moved, and is only deleted in the
      folder of this run; one that has gone is told of, and the next validation counts as the best.
    - ``rule`` need not be given for any score of mmsam, such as ``sam/NoC85``, of which less is
      better. A score that the validation does not give is an error that names those it gives.
    - A training that ends early (``SAMEarlyStoppingHook``) has its last checkpoint too.
    - A checkpoint that cannot be written (a full disk) is announced as an error, and the training
      goes on to the next one, or ends: ``on_write_error``. A run whose last one could not be
      written ends with that error, when all else is done.

    Args: as mmengine's, without those of other places than a folder; and

        on_write_error: 'continue' or 'stop'.

    Raises:
        ConfigError: another ``on_write_error``; a ``rule`` that is wrong, or missing where the name
            does not tell it; ``save_best`` is no score of the validation.
        StorageError: a checkpoint cannot be written: any with 'stop', else the last one.
    """

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        out_dir: str | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,
        save_best: str | list[str] | None = None,
        rule: str | list[str] | None = None,
        greater_keys: Sequence[str] | None = None,
        less_keys: Sequence[str] | None = None,
        filename_tmpl: str | None = None,
        published_keys: str | list[str] | None = None,
        save_begin: int = 0,
        on_write_error: str = 'continue',
    ) -> None:
        if on_write_error not in ('continue', 'stop'):
            raise ConfigError(
                "on_write_error of SAMCheckpointHook is 'continue' or 'stop', "
                f'got {on_write_error!r}.'
            )
        super().__init__(
            interval=interval,
            by_epoch=by_epoch,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            out_dir=out_dir,
            max_keep_ckpts=max_keep_ckpts,
            save_last=save_last,
            save_best=save_best,
            rule=rule,
            greater_keys=greater_keys,
            less_keys=less_keys,
            filename_tmpl=filename_tmpl,
            published_keys=published_keys,
            save_begin=save_begin,
        )
        self.on_write_error = on_write_error
        self._is_due = False
        self._unsaved: StorageError | None = None

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if is_main_process():
            for leftover in Path(self.out_dir).glob('.*.partial'):  # of a run that was killed
                leftover.unlink(missing_ok=True)
        if self.interval == -1:
            last = 'one is saved at the end' if self.save_last else 'none is saved at the end'
            runner.logger.warning(
                f'Checkpoints are off (interval=-1): {last}, and a run that is killed is lost.'
            )
        if self.save_best:
            self._find_best(runner)

    def _init_rule(self, rules: list[str | None], key_indicators: list[str]) -> None:
        if len(rules) == 1:
            rules = rules * len(key_indicators)
        wrong = [rule for rule in rules if rule not in (None, *RULES)]
        if wrong:
            raise ConfigError(f"rule of save_best: expected 'greater' or 'less', got {wrong[0]!r}.")
        rules = [
            rule or rule_of_score(key) for rule, key in zip(rules, key_indicators, strict=True)
        ]
        try:
            super()._init_rule(rules, key_indicators)
        except ValueError as error:
            raise ConfigError(f"save_best: {error} Set rule='greater' or rule='less'.") from None

    def _find_best(self, runner: Runner) -> None:
        """Where a resumed run has its best checkpoint, whose path is that of its first start."""
        paths = self._best_paths()
        for key, path in paths.items():
            if path is None or Path(path).is_file():
                continue
            here = Path(self.out_dir) / Path(path).name
            suffix = f'_{key}' if key else ''
            if here.is_file():
                paths[key] = str(here)
                runner.message_hub.update_info(f'best_ckpt{suffix}', paths[key])
            else:
                paths[key] = None
                for name in ('best_ckpt', 'best_score'):
                    runner.message_hub.runtime_info.pop(f'{name}{suffix}', None)
                runner.logger.warning(
                    f'The best checkpoint so far, {path}, is not there any more, nor is {here}: '
                    'the next validation counts as the best.'
                )
        self._set_best_paths(paths)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        # not sooner: what happens before, such as a validation, draws random numbers too
        if runner.resumed_random_state is not None:
            set_random_state(runner.resumed_random_state)
            runner.resumed_random_state = None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        if self.by_epoch:
            return
        if self.every_n_train_iters(runner, self.interval, self.save_begin) or (
            self.save_last and self.is_last_train_iter(runner)
        ):
            self._is_due = True
        if self._is_due and not self._must_wait(runner):
            self._is_due = False
            runner.logger.info(f'Saving checkpoint at {runner.iter + 1} iterations')
            self._save_checkpoint(runner)

    def _save_checkpoint(self, runner: Runner) -> None:
        runner.random_states = random_states()
        super()._save_checkpoint(runner)

    @master_only
    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self._must_wait(runner):  # mmengine saves again after a new best score
            return
        path = self._path(step)
        is_new = not path.exists()
        last, kept = self.last_ckpt, list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []
        now_kept = [*(number for number in kept if number != step), step]
        self._note(runner, str(path), now_kept[-self.max_keep_ckpts :])
        try:
            runner.save_checkpoint(
                str(path.parent),
                path.name,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
            )
            name_latest(Path(runner.work_dir), path)
        except StorageError as error:
            self._note(runner, last, kept)
            if is_new:
                remove_training_checkpoint(path)  # whole perhaps, but without a digest
            self._announce(runner, error)
            self._unsaved = error
            return
        self._unsaved = None
        if self.max_keep_ckpts > 0:
            for number in now_kept[: -self.max_keep_ckpts]:
                remove_training_checkpoint(self._path(number))

    def after_train(self, runner: Runner) -> None:
        if self.save_last and runner.train_loop.stop_training:  # or it is saved already
            runner.random_states = random_states()
            step = runner.epoch if self.by_epoch else runner.iter
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)
        super().after_train(runner)

    def after_run(self, runner: Runner) -> None:
        with raised_by_all():
            if self._unsaved is not None:
                last = self.last_ckpt or latest_in_work_dir(runner)
                raise StorageError(f'{self._unsaved} The last good one: {last}.')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        for key in self.key_indicators:
            if key != 'auto':
                check_score('save_best', key, metrics)
        runner.random_states = random_states()
        info = runner.message_hub.runtime_info
        old_info = dict(info)
        old_paths = self._best_paths()
        self._set_best_paths(dict.fromkeys(old_paths))  # mmengine deletes them before it saves
        try:
            with raised_by_all():  # or ranks would differ in which score is the best
                super()._save_best_checkpoint(runner, metrics)
        except StorageError as error:
            self._set_best_paths(old_paths)
            info.clear()
            info.update(old_info)
            self._announce(runner, error)
            return
        if self._must_wait(runner) and info != old_info:
            self._is_due = True
        new_paths = self._best_paths()
        self._set_best_paths({key: new_paths[key] or path for key, path in old_paths.items()})
        if is_main_process():
            for key, path in old_paths.items():
                if path and new_paths[key] not in (None, path):
                    self._remove_best(Path(path))

    def _remove_best(self, path: Path) -> None:
        """Unless it belongs to the run from which this one goes on, in a folder of its own."""
        if path.parent.resolve() == Path(self.out_dir).resolve():
            remove_training_checkpoint(path)

    def _must_wait(self, runner: Runner) -> bool:
        return not self.by_epoch and is_between_updates(runner.optim_wrapper)

    def _path(self, step: int) -> Path:
        return Path(self.out_dir) / self.filename_tmpl.format(step)

    def _note(self, runner: Runner, last: str | None, kept: list[int]) -> None:
        """Remember the latest checkpoint and the ones that are kept, here and in what is saved."""
        self.last_ckpt = last
        runner.message_hub.update_info('last_ckpt', last)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', kept)

    def _best_paths(self) -> dict[str, str | None]:
        """The best checkpoint of each key indicator."""
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}  # mmengine renames the indicator 'auto'
        return dict(self.best_ckpt_path_dict)

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            (self.best_ckpt_path,) = paths.values()
        else:
            self.best_ckpt_path_dict.update(paths)

    def _announce(self, runner: Runner, error: StorageError) -> None:
        if self.on_write_error == 'stop':
            raise error
        if is_main_process():
            last = self.last_ckpt or latest_in_work_dir(runner)
            runner.logger.error(f'{error} The training goes on; the last good one: {last}.')


def latest_in_work_dir(runner: Runner) -> Path | None:
    """The latest checkpoint, perhaps of an earlier start of the run; it is not read."""
    return next(iter(training_checkpoints(Path(runner.work_dir))), None)
