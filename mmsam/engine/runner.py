"""mmengine's Runner with strict loading of SAM weights and distributed training on CPUs."""

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_distributed, is_main_process, master_only
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn
from torch.utils.data import DataLoader

from mmsam import __version__
from mmsam.checkpoint import read_state_dict
from mmsam.errors import CheckpointError, ConfigError
from mmsam.registry import RUNNERS
from mmsam.training_checkpoint import (
    latest_training_checkpoint,
    read_training_checkpoint,
    save_training_checkpoint,
)
from mmsam.weight_layouts import describe_architecture

from .optim_wrappers import single_wrappers
from .random_state import RandomState


@RUNNERS.register_module()
class SAMRunner(Runner):
    """Runner of all mmsam tools; it trains any mmseg model as well.

    Differences to mmengine's:

    - A model with a method ``load_weights`` (``SAMSegmentor``) loads ``load_from`` through it;
      mmengine only logs what is missing.
    - Checkpoints are plain data, written atomically, with a digest and all random states; a run
      resumes strictly, bit by bit on a CPU, and nothing in a file is ever run.
    - Distributed data parallel works on CPUs, and for SAM always looks for unused parameters: a
      loss or a prompt may leave a part untouched, which would hang the other ranks.
    """

    random_states: list[RandomState] | None = None
    """Of all ranks, as they were when ``SAMCheckpointHook`` began to save."""

    resumed_random_state: RandomState | None = None
    """Of this rank, for ``SAMCheckpointHook`` to set before the first resumed iteration."""

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """As mmengine's, with a generator of its own.

        Else each pass through a loader would draw from the generator of the training, and a
        resumed run, which has made fewer passes, would go on with other random numbers.
        """
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if loader.generator is None:
            loader.generator = torch.Generator().manual_seed(seed or 0)
        return loader

    def load_or_resume(self) -> None:
        """Load or resume what the config says; without a file, resume from the latest whole one.

        Raises:
            CheckpointError: there is none to resume from, or it does not fit.
        """
        if self._resume and self._load_from is None and not self._has_loaded:  # type: ignore[has-type]
            latest: list[Path | CheckpointError] = []
            if is_main_process():
                try:
                    latest.append(latest_training_checkpoint(Path(self.work_dir)))
                except CheckpointError as error:
                    latest.append(error)
            else:
                latest.append(Path())
            broadcast_object_list(latest)
            if isinstance(latest[0], CheckpointError):
                raise latest[0]
            self._load_from = str(latest[0])
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
        self._check_global_batch(meta, filename)
        found = describe_architecture(content['state_dict'])
        wanted = describe_architecture(model.state_dict())
        if found != wanted:
            raise CheckpointError(f'{filename} has {found} weights, the config builds {wanted}.')
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

    def _check_global_batch(self, meta: dict, filename: str) -> None:
        """Refuse another number of images an iteration; say what another number of ranks changes.

        Each iteration takes the next images of one order for all ranks together, so with the same
        number of them a run goes on where it was, however many ranks share them.
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
            self.logger.warning(
                f'{filename} is of {meta["world_size"]} processes, now there are '
                f'{self.world_size}: the images of each iteration stay the same, sums are rounded '
                'otherwise, and dropout draws other numbers.'
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
            'cfg': self.cfg.pretty_text,
            'seed': self.seed,
            'world_size': self.world_size,
            'batch_size': self.train_dataloader.batch_size,
            'experiment_name': self.experiment_name,
            'time': self.timestamp,
            'mmsam_version': __version__,
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
            device_ids = [int(os.environ['LOCAL_RANK'])] if torch.cuda.is_available() else None
            is_sam = hasattr(model, 'load_weights')
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                device_ids=device_ids,
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', is_sam),
            )
        return super().wrap_model(model_wrapper_cfg, model)


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
