"""mmengine's Runner with strict loading of SAM weights and distributed training on CPUs."""

import errno
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_distributed, is_main_process, master_only
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mmsam import __version__, stop_signal
from mmsam.atomic_file import write_text_atomically
from mmsam.checkpoint import check_finite, read_state_dict, show_keys
from mmsam.errors import CheckpointError, ConfigError
from mmsam.registry import RUNNERS
from mmsam.training_checkpoint import (
    latest_training_checkpoint,
    read_training_checkpoint,
    save_training_checkpoint,
)
from mmsam.weight_layouts import describe_architecture

from . import slurm
from .agreement import raised_by_all
from .hooks.embedding_cache_hook import EmbeddingCacheHook
from .loader_workers import WORKER_TIMEOUT, make_workers_deaf, worker_failures
from .optim_wrappers import single_wrappers
from .random_state import RandomState

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_RESUMED_META = frozenset({'epoch', 'iter', 'seed', 'world_size', 'batch_size'})


@RUNNERS.register_module()
class SAMRunner(Runner):
    """Runner of all mmsam tools; it trains any mmseg model as well.

    Differences to mmengine's:

    - A model with a method ``load_weights`` (``SAMSegmentor``) loads ``load_from`` through it;
      mmengine only logs what is missing.
    - Checkpoints are plain data, written atomically, with a digest and all random states; a run
      resumes strictly, bit by bit on a CPU, and nothing in a file is ever run.
    - A worker of a data loader that fails, is killed or hangs ends the run with one ``DataError``.
    - Distributed data parallel works on CPUs, and for SAM always looks for unused parameters: a
      loss or a prompt may leave a part untouched, which would hang the other ranks.
    """

    random_states: list[RandomState] | None = None
    """Of all ranks, as they were when ``SAMCheckpointHook`` began to save."""

    resumed_random_state: RandomState | None = None
    """Of this rank, for ``SAMCheckpointHook`` to set before the first resumed iteration."""

    @classmethod
    def from_cfg(cls, cfg: dict | Config) -> 'SAMRunner':
        """As mmengine's; ``embedding_cache=dict(folder=...)`` adds ``EmbeddingCacheHook``.

        Raises:
            ConfigError: there is no model.
        """
        if cfg.get('model') is None:
            raise ConfigError(
                'model: expected the config of a model, such as a file of configs/_base_/models '
                'has, got none.'
            )
        runner = super().from_cfg(cfg)
        if cfg.get('embedding_cache') is not None:
            runner.register_hook(EmbeddingCacheHook(**cfg['embedding_cache']))
        return runner

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """As mmengine's, with a generator of its own, and with a time limit for its workers.

        Else each pass through a loader would draw from the generator of the training, and a
        resumed run, which has made fewer passes, would go on with other random numbers. Where this
        process follows signals when it has saved, its workers ignore them.
        """
        is_new = isinstance(dataloader, dict)
        if isinstance(dataloader, dict) and dataloader.get('num_workers', 0) > 0:
            dataloader = {'timeout': WORKER_TIMEOUT, **dataloader}
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if is_new and loader.num_workers > 0 and stop_signal.is_listening():
            make_workers_deaf(loader)
        if loader.generator is None:
            loader.generator = torch.Generator().manual_seed(seed or 0)
        return loader

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """As mmengine's; a hook that finds no room on the disk loses a record, not the run.

        It is announced as an error. Of checkpoints ``SAMCheckpointHook`` knows what to do.
        """
        for hook in self._hooks:
            if hasattr(hook, fn_name):
                try:
                    getattr(hook, fn_name)(self, **kwargs)
                except OSError as error:
                    if error.errno not in _NO_ROOM:
                        raise
                    name = type(hook).__name__
                    self.logger.error(f'{name} cannot write: {error}. The run goes on without it.')

    def train(self) -> nn.Module:
        """As mmengine's; what befalls workers of data loaders becomes one ``DataError``."""
        with worker_failures():
            return super().train()

    def val(self) -> dict:
        """As mmengine's; what befalls workers of data loaders becomes one ``DataError``."""
        with worker_failures():
            return super().val()

    def test(self) -> dict:
        """As mmengine's; what befalls workers of data loaders becomes one ``DataError``."""
        with worker_failures():
            return super().test()

    def test_weights(self, checkpoint: str) -> dict:
        """Test the weights of a file; one runner can test several, one after the other.

        Args:
            checkpoint: path or URL of the weights.

        Returns:
            Scores by name, on the main rank.

        Raises:
            CheckpointError: the file cannot be read, or does not fit.
        """
        self._load_from, self._resume, self._has_loaded = checkpoint, False, False
        return self.test()

    @cached_property
    def _config_text(self) -> str:
        """The config as checkpoints hold it; formatting it takes as long as writing one."""
        return self.cfg.pretty_text

    def load_or_resume(self) -> None:
        """Load or resume what the config says; without a file, resume from the latest whole one.

        Raises:
            CheckpointError: there is none to resume from, or it does not fit.
        """
        if self._resume and self._load_from is None and not self._has_loaded:
            latest = self._latest_checkpoint()
            if latest is None:
                raise CheckpointError(
                    f'{self.work_dir} holds no checkpoint to go on from; start without --resume.'
                )
            self._load_from = str(latest)
        super().load_or_resume()
        if not self._has_loaded:
            self._show_weights_to_hooks()

    def _show_weights_to_hooks(self) -> None:
        """Tell hooks which weights the run starts from: EMAHook has copied the model before."""
        model = self.model.module if is_model_wrapper(self.model) else self.model
        self.call_hook('after_load_checkpoint', checkpoint={'state_dict': model.state_dict()})

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None
    ) -> None:
        """Scale all learning rates by images an update / ``base_batch_size``, if ``enable`` is set.

        mmengine counts the images of an iteration, of which ``accumulative_counts`` make an update.

        Args: as mmengine's.
        """
        if auto_scale_lr is None or not auto_scale_lr.get('enable', False):
            return
        base = auto_scale_lr['base_batch_size']
        for wrapper in single_wrappers(optim_wrapper):
            counts = wrapper._accumulative_counts
            images = self.world_size * self.train_dataloader.batch_size * counts
            changes = {}
            for group in wrapper.param_groups:
                before = group['lr']
                group['lr'] = before * images / base
                changes[before] = group['lr']
            self.logger.info(
                f'Learning rates are for {base} images an update, there are {images} '
                f'({self.world_size} processes x {self.train_dataloader.batch_size} images x '
                f'{counts} accumulated): '
                + ', '.join(f'{before:g} becomes {after:g}' for before, after in changes.items())
            )

    def go_on_if_stopped(self, auto_resume: bool = False) -> None:
        """Resume where this run has stopped, whatever it was first told to start from.

        To be called when nothing else may write to the work dir any more. Without a checkpoint the
        run starts as it was told.

        Args:
            auto_resume: go on from the latest checkpoint in the work dir; else only a job that
                Slurm has requeued goes on, and from checkpoints of its own.

        Raises:
            CheckpointError: only damaged ones are left to choose from.
        """
        if not (auto_resume or slurm.is_requeued()):
            return
        job = None if auto_resume else slurm.job_id()
        run = '--auto-resume: the run' if auto_resume else f'Slurm job {job} was requeued and'
        latest = self._latest_checkpoint(job)
        if latest is None:
            self.logger.info(f'{run} finds nothing saved to go on from.')
            return
        self.logger.info(f'{run} goes on from {latest}.')
        self._load_from, self._resume = str(latest), True

    def _latest_checkpoint(self, slurm_job: str | None = None) -> Path | None:
        """As the main process finds it; other machines may not see the same files yet."""
        answer: list[Path | None] = [None]
        with raised_by_all():
            if is_main_process():
                answer = [latest_training_checkpoint(Path(self.work_dir), slurm_job)]
        broadcast_object_list(answer)
        return answer[0]

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list | None = None,
    ) -> dict:
        """Load weights (``load_from``); of a SAM all of them, of other models what fits.

        Args: as mmengine's; files and http(s) addresses are read as data, without running code.

        Returns:
            ``{'state_dict': ...}``.

        Raises:
            CheckpointError: the file cannot be read, or does not fit.
        """
        model = self.model.module if is_model_wrapper(self.model) else self.model
        self._has_loaded = True
        if hasattr(model, 'load_weights'):
            model.load_weights(filename)
            self._show_weights_to_hooks()
            return {'state_dict': model.state_dict()}
        content = {'state_dict': read_state_dict(filename)}
        check_finite(content['state_dict'], filename)
        keys = [(r'^module\.', '')] if revise_keys is None else revise_keys
        try:
            _load_checkpoint_to_model(model, content, strict, self.logger, keys)
        except RuntimeError as error:
            raise CheckpointError(f'{filename} does not fit: {error}') from None
        self._show_weights_to_hooks()
        return content

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
    ) -> None:
        """Go on from a training checkpoint of mmsam, whose content is only ever read as data.

        Args: as mmengine's; tensors go to where the model and the optimizer have them, whatever
            ``map_location`` says.

        Raises:
            CheckpointError: the file is damaged, is not mmsam's, or is of another model,
                optimizer, schedule or number of images an iteration, or of a run with averaged
                weights while this one has none, or the other way round.
        """
        content = read_training_checkpoint(Path(filename))
        model = self.model.module if is_model_wrapper(self.model) else self.model
        meta = content['meta']
        if not isinstance(meta, dict) or not meta.keys() >= _RESUMED_META:
            raise CheckpointError(
                f'{filename} is a checkpoint of another program than mmsam, perhaps of mmengine: '
                'start from its weights with --load-from.'
            )
        self._check_global_batch(meta, filename, model)
        found = describe_architecture(content['state_dict'])
        wanted = describe_architecture(model.state_dict())
        if found != wanted:
            raise CheckpointError(f'{filename} has {found} weights, the config builds {wanted}.')
        check_finite(content['state_dict'], filename)
        averages = 'ema_state_dict' in content
        if averages != any(isinstance(hook, EMAHook) for hook in self.hooks):
            had, has = ('an', 'none') if averages else ('no', 'one')
            raise CheckpointError(
                f'{filename} is of a run with {had} EMAHook, the config has {has}.'
            )
        self.call_hook('after_load_checkpoint', checkpoint=content)  # EMAHook takes its averages
        try:
            model.load_state_dict(content['state_dict'], strict=True)
        except RuntimeError as error:
            raise CheckpointError(
                f'{filename} does not fit the model: {" ".join(str(error).split())}'
            ) from None
        self.train_loop._epoch, self.train_loop._iter = meta['epoch'], meta['iter']
        self._resume_seed(meta['seed'])
        self.message_hub.load_state_dict(_message_hub_of_plain(content['message_hub']))
        if resume_optimizer:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)  # type: ignore[has-type]
            _check_trained(meta.get('trained'), _trained_names(self.optim_wrapper, model), filename)
            wanted_rates = self._first_rates()
            try:
                # a copy: the optimizer would keep tensors that are mapped from the file
                self.optim_wrapper.load_state_dict(deepcopy(content['optimizer']))
            except (ValueError, KeyError) as error:
                raise CheckpointError(
                    f'{filename} is of another optimizer or trains other parameters: {error}.'
                ) from None
            rates = self._first_rates()
            if rates != wanted_rates:
                self.logger.warning(
                    f'The run began with learning rates {_distinct(rates)}, which are kept; the '
                    f'config says {_distinct(wanted_rates)}.'
                )
        if resume_param_scheduler:
            self._resume_schedulers(content.get('param_schedulers'), filename)
        states = content.get('random_states', ())
        if len(states) == self.world_size:
            self.resumed_random_state = states[self.rank]
        self._has_loaded = True
        self.logger.info(f'resumed {filename} at iteration {self.iter}')

    def _check_global_batch(self, meta: dict, filename: str, model: nn.Module) -> None:
        """Refuse another number of images an iteration; say what another number of ranks changes.

        Each iteration takes the next images of one order for all ranks together, so with the same
        number of them a run goes on where it was, however many ranks share them; but for
        BatchNorm, whose statistics are those of one rank's images.
        """
        before = meta['world_size'] * meta['batch_size']
        now = self.world_size * self.train_dataloader.batch_size
        if before != now:
            raise CheckpointError(
                f'{filename} was trained with {before} images an iteration ({meta["world_size"]} '
                f'processes of {meta["batch_size"]}), now it would be {now} ({self.world_size} of '
                f'{self.train_dataloader.batch_size}): images would be repeated or left out. Set '
                f'train_dataloader.batch_size so that it is {before} again, or start from the '
                'weights with --load-from.'
            )
        if meta['world_size'] != self.world_size:
            names = [
                name
                for name, part in model.named_modules()
                if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm)
            ]
            self.logger.warning(
                f'{filename} is of {meta["world_size"]} processes, now there are '
                f'{self.world_size}: the images of each iteration stay the same, sums are rounded '
                'otherwise, and dropout draws other numbers.'
                + (
                    f' {len(names)} BatchNorm layers ({show_keys(names)}) normalise by the '
                    f'images of a process, which were {meta["batch_size"]} and are '
                    f'{self.train_dataloader.batch_size}: the training becomes another one.'
                    if names
                    else ''
                )
            )

    def _first_rates(self) -> list[float]:
        """Learning rates of all parameter groups before any schedule."""
        wrappers = single_wrappers(self.optim_wrapper)
        groups = [group for wrapper in wrappers for group in wrapper.optimizer.param_groups]
        return [group.get('initial_lr', group['lr']) for group in groups]

    def _resume_seed(self, seed: int) -> None:
        wanted = self._randomness_cfg.get('seed')
        if seed == wanted:
            return
        if wanted is not None:
            self.logger.warning(
                f'The run began with seed {seed}, which is kept; the config says {wanted}.'
            )
        self._randomness_cfg.update(seed=seed)
        self.set_randomness(**self._randomness_cfg)

    def _resume_schedulers(self, states: Any, filename: str) -> None:
        built = self.param_schedulers and self.build_param_scheduler(self.param_schedulers)  # type: ignore[has-type]
        if not built:
            return
        self.param_schedulers = built
        if isinstance(built, dict):
            ours = [scheduler for group in built.values() for scheduler in group]
            states = [state for group in states.values() for state in group]
        else:
            ours = built
        if states is None or len(states) != len(ours):
            raise CheckpointError(
                f'{filename} has {len(states or ())} parameter schedulers, the config {len(ours)}.'
            )
        for scheduler, state in zip(ours, states, strict=True):
            scheduler.load_state_dict(state)

    @master_only
    def dump_config(self) -> None:
        """Write the config to the work dir, atomically: a job that goes on may run from that file.

        Raises:
            StorageError: it cannot be written.
        """
        name = Path(self.cfg.filename or f'{self.timestamp}.py').name
        write_text_atomically(Path(self.work_dir) / name, self.cfg.dump())

    @master_only
    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Write a training checkpoint, see ``mmsam.training_checkpoint``.

        Args: as mmengine's, but files go to a local folder only.

        Raises:
            ConfigError: ``file_client_args`` or ``backend_args`` is given.
            StorageError: it cannot be written.
        """
        if file_client_args is not None or backend_args is not None:
            raise ConfigError(
                'Checkpoints go to a folder: file_client_args and backend_args must be None.'
            )
        done = 1 if by_epoch else 0
        meta = {
            'epoch': self.epoch + done,
            'iter': self.iter + 1 - done,
            **(meta or {}),
            'cfg': self._config_text,
            'seed': self.seed,
            'world_size': self.world_size,
            'batch_size': self.train_dataloader.batch_size,
            'experiment_name': self.experiment_name,
            'time': self.timestamp,
            'mmsam_version': __version__,
            'slurm_job': slurm.job_id(),
        }
        if hasattr(self.train_dataloader.dataset, 'metainfo'):
            meta['dataset_meta'] = dict(self.train_dataloader.dataset.metainfo)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        checkpoint = {
            'meta': meta,
            'state_dict': model.state_dict(),
            'message_hub': _plain_of_message_hub(self.message_hub.state_dict()),
        }
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
            meta['trained'] = _trained_names(self.optim_wrapper, model)
        schedulers = self.param_schedulers
        if save_param_scheduler and schedulers is not None:
            if isinstance(schedulers, dict):
                checkpoint['param_schedulers'] = {
                    name: [s.state_dict() for s in group] for name, group in schedulers.items()
                }
            else:
                checkpoint['param_schedulers'] = [s.state_dict() for s in schedulers]
        if self.random_states is not None:
            checkpoint['random_states'] = self.random_states
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        save_training_checkpoint(checkpoint, Path(out_dir) / filename)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap for distributed training; a ``model_wrapper_cfg`` in the config goes first."""
        if is_distributed() and model_wrapper_cfg is None and not is_model_wrapper(model):
            device_ids = [torch.cuda.current_device()] if torch.cuda.is_available() else None
            is_sam = hasattr(model, 'load_weights')
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                device_ids=device_ids,
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', is_sam),
            )
        return super().wrap_model(model_wrapper_cfg, model)


_Names = dict[str, list[list[str]]]


def _trained_names(wrapper: Any, model: nn.Module) -> _Names:
    """By optimizer, of which there may be several: the parameters of each of its groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    wrappers = dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}
    return {
        key: [[names[id(p)] for p in group['params']] for group in one.optimizer.param_groups]
        for key, one in wrappers.items()
    }


def _check_trained(before: _Names | None, now: _Names, filename: str) -> None:
    """Compare what a checkpoint's optimizer trained, where that is known, with what ours will.

    An optimizer finds the state of a parameter by its position alone.
    """
    if before is None or before == now:
        return
    old, new = (
        {name for groups in names.values() for group in groups for name in group}
        for names in (before, now)
    )
    changes = [
        f'{len(names)} {what} ({show_keys(sorted(names))})'
        for names, what in (
            (new - old, 'trained now were not'),
            (old - new, 'trained then are not'),
        )
        if names
    ]
    raise CheckpointError(
        f'{filename} trained other parameters: '
        f'{" and ".join(changes) or "the same in other groups or order"}; set model.frozen and '
        'optim_wrapper as they were, or start from the weights with --load-from.'
    )


def _distinct(rates: list[float]) -> str:
    return ', '.join(f'{rate:g}' for rate in dict.fromkeys(rates))


def _plain_of_message_hub(state: dict[str, Any]) -> dict[str, Any]:
    """A message hub's state with its log as arrays instead of mmengine's objects."""
    scalars = {
        name: {'data': buffer.data, 'max_length': buffer.max_length}
        for name, buffer in state['log_scalars'].items()
    }
    return {**state, 'log_scalars': scalars}


def _message_hub_of_plain(state: dict[str, Any]) -> dict[str, Any]:
    """Reverse of ``_plain_of_message_hub``."""
    scalars = {
        name: HistoryBuffer(*(part.tolist() for part in buffer['data']), buffer['max_length'])
        for name, buffer in state['log_scalars'].items()
    }
    return {**state, 'log_scalars': scalars}
