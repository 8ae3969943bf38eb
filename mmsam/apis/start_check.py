"""Room for a run: on the disk, in memory and in /dev/shm, before iteration 1.

Only what certainly cannot work is refused; the rest is estimated and warned about.
"""

import logging
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from mmsam.engine.agreement import raised_by_all
from mmsam.engine.host_memory import SHARED_MEMORY, available_memory
from mmsam.engine.model_parts import unwrapped
from mmsam.errors import LaunchError, StorageError
from mmsam.models.sam.image_encoder import PATCH_SIZE
from mmsam.registry import OPTIMIZERS

from .config_check import datasets_of

_ADAMS_STATES = 2.0
_NEARLY_ALL = 0.8
"""Share of the available memory from which weights and optimizer leave little for the rest."""

_LEAST_GROWTH, _MOST_GROWTH = 3, 8
"""Memory while a COCO file is read, in its sizes.

Measured as the peak above what the process had, over files of 20 to 60 MB: 7.4 for polygons of
two decimals, 5.3 for lists of runs, 3.9 for short compressed RLE, 3.0 for those of 0.7 MB each.
"""


def check_annotation_memory(config: Config, loaders: tuple[str, ...]) -> None:
    """Compare what reading the largest COCO file takes with the memory; all ranks end together.

    All ranks read all files, one file after the other, at about the same time.

    Args:
        config: as it will run.
        loaders: keys of the data loaders that will be used.

    Raises:
        LaunchError: the ranks of a machine certainly exceed its memory.
    """
    files = [path for loader in loaders for path in _coco_files(config.get(loader))]
    ranks_here = _number_of_ranks_here()
    with raised_by_all():
        available = available_memory()
        if available is None or not files:
            return
        path = max(files, key=lambda file: file.stat().st_size)
        size = path.stat().st_size
        who = f'{_processes(ranks_here)} on {socket.gethostname()}'
        advice = (
            f'{_megabytes(available)} are available: start fewer processes, or keep the masks as '
            "images (reader 'mask_folder')."
        )
        least, most = (ranks_here * growth * size for growth in (_LEAST_GROWTH, _MOST_GROWTH))
        if least > available:
            raise LaunchError(
                f'{path} has {_megabytes(size)}, {who} need at least {_megabytes(least)} of memory '
                f'to read it, {advice}'
            )
        if most > _NEARLY_ALL * available:
            print_log(
                f'{path} has {_megabytes(size)}, {who} may need {_megabytes(most)} of memory to '
                f'read it, {advice}',
                logger='current',
                level=logging.WARNING,
            )


def _coco_files(loader: Any) -> Iterator[Path]:
    """The JSON files that exist of a loader's data sets."""
    for dataset in datasets_of(loader['dataset'] if loader else None):
        name = (dataset.get('reader') or {}).get('ann_file')
        path = Path(dataset.get('data_root') or '', name or '')
        if name and path.is_file():
            yield path


def check_room(runner: Runner) -> None:
    """Compare what a training will need with what there is; all ranks end together.

    Args:
        runner: with its model built, before ``train``.

    Raises:
        StorageError: not even one checkpoint fits on its disk.
        LaunchError: gradients and optimizer of the ranks of a machine exceed its memory.
    """
    model = unwrapped(runner.model)
    states = _states_per_weight(runner.cfg.get('optim_wrapper'))
    ranks_here = _number_of_ranks_here()
    with raised_by_all():
        _check_memory(runner, _trained_bytes(model), states, ranks_here)
        if is_main_process():
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook):
                    _check_disk(runner, hook, checkpoint_bytes(model, states, hook.save_optimizer))
        _check_shared_memory(runner, ranks_here)


def _number_of_ranks_here() -> int:
    host = socket.gethostname()
    return all_gather_object(host).count(host)


def _processes(number: int) -> str:
    return f'{number} process{"es" if number > 1 else ""}'


def checkpoint_bytes(model: nn.Module, states: float, with_optimizer: bool) -> int:
    """Size of one training checkpoint: all weights, and the optimizer's states of the trained ones.

    Args:
        model: without a distributed wrapper.
        states: numbers that the optimizer keeps for a weight.
        with_optimizer: whether they are saved.
    """
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    return int(weights + (states * _trained_bytes(model) if with_optimizer else 0))


def _trained_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _states_per_weight(optim_wrapper: Any) -> float:
    """Numbers that the optimizer keeps for each weight, tried out on a small one: 2 of Adam."""
    config = (optim_wrapper or {}).get('optimizer')
    if config is None:  # several optimizers
        return _ADAMS_STATES
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.zeros_like(weight)
    try:
        optimizer = OPTIMIZERS.build({**config, 'params': [weight]})
        optimizer.step()
    except Exception:  # noqa: BLE001  (one for GPUs only, perhaps: this is an estimate)
        return _ADAMS_STATES
    kept = [value for state in optimizer.state.values() for value in state.values()]
    numbers = sum(value.numel() for value in kept if isinstance(value, Tensor) and value.ndim)
    return numbers / weight.numel()


# ------------------------------------------------------------------------------------------- disk


def _check_disk(runner: Runner, hook: CheckpointHook, size: int) -> None:
    folder = Path(hook.out_dir or runner.work_dir)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise StorageError(
            f'{folder} has {_megabytes(free)} free, one checkpoint takes about '
            f'{_megabytes(size)}: make room, or choose another --work-dir.'
        )
    kept = _number_of_checkpoints(runner, hook) + (
        len(hook.key_indicators) if hook.save_best else 0
    )
    there = sum(path.stat().st_size for path in folder.glob('*.pth'))  # they are among the kept
    if free + there < (kept + 1) * size:  # an old one is deleted when its successor is complete
        runner.logger.warning(
            f'{folder} has {_megabytes(free)} free; {kept} checkpoints of about '
            f'{_megabytes(size)} that are kept, and one being written, need more: lower '
            'default_hooks.checkpoint.max_keep_ckpts.'
        )


def _number_of_checkpoints(runner: Runner, hook: CheckpointHook) -> int:
    """How many will be kept, the best ones not counted."""
    if hook.max_keep_ckpts > 0:
        return hook.max_keep_ckpts
    length = runner.cfg.train_cfg.get('max_epochs' if hook.by_epoch else 'max_iters', 1)
    return max(1, length // hook.interval if hook.interval > 0 else 0)


# ----------------------------------------------------------------------------------------- memory


def _check_memory(runner: Runner, trained: int, states: float, ranks_here: int) -> None:
    """On a CPU, what the first iteration adds to the weights, which are there already."""
    available = available_memory()
    if available is None or torch.cuda.is_available():
        return
    is_distributed = runner.world_size > 1
    copies = 1 + states + (1 if is_distributed else 0)  # gradients, optimizer, buckets of DDP
    needed = int(ranks_here * copies * trained)
    what = (
        f'Gradients and optimizer of {_processes(ranks_here)} on '
        f'{socket.gethostname()} need {_megabytes(needed)} of memory, {_megabytes(available)} '
        'are available'
    )
    advice = 'start fewer processes, or freeze parts of the model (model.frozen).'
    if needed > available:
        raise LaunchError(f'{what}: {advice}')
    if needed > _NEARLY_ALL * available:
        runner.logger.warning(f'{what}, which leaves little for the rest: {advice}')


# ---------------------------------------------------------------------------------- shared memory


def _check_shared_memory(runner: Runner, ranks_here: int) -> None:
    """Batches of the data loaders' processes wait in /dev/shm; a full one kills the process."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return
    loaders = ('train_dataloader', 'val_dataloader')
    pixel_bytes = 3.0  # RGB
    if runner.cfg.get('embedding_cache') is not None:
        encoder = unwrapped(runner.model).image_encoder
        pixel_bytes = 2 * encoder.out_chans / PATCH_SIZE**2  # float16, one for each patch
    needed = ranks_here * sum(
        _waiting_bytes(runner.cfg.get(loader), pixel_bytes) for loader in loaders
    )
    if needed > free:
        runner.logger.warning(
            f'{SHARED_MEMORY} has {_megabytes(free)} free, the batches that wait there for '
            f'{_processes(ranks_here)} may take '
            f'{_megabytes(needed)}: give the container more (docker run --shm-size), or set '
            'train_dataloader.num_workers=0.'
        )


def _waiting_bytes(loader: Any, pixel_bytes: float) -> int:
    """Most bytes of the batches that the processes of a loader hold ready; 0 where unknown."""
    if not loader or not loader.get('num_workers'):
        return 0
    batches = loader['num_workers'] * (loader.get('prefetch_factor') or 2)
    samples = [
        _sample_bytes(dataset.get('pipeline'), pixel_bytes)
        for dataset in datasets_of(loader['dataset'])
    ]
    return batches * loader.get('batch_size', 1) * max(samples, default=0)


def _sample_bytes(pipeline: Sequence[dict] | None, pixel_bytes: float) -> int:
    """Most bytes of a sample of a SAM pipeline: a square image, and its masks (uint8).

    ``pixel_bytes`` are those of the image, or of its embedding, for a pixel.
    """
    by_name = {str(step.get('type')).split('.')[-1]: step for step in pipeline or ()}
    side = by_name.get('ResizeLongestSide', {}).get('image_size', 0)
    masks = by_name.get('RandomObjects', {}).get('max_objects', 1)
    return int(side**2 * (pixel_bytes + (masks if 'DecodeObjectMasks' in by_name else 0)))


def _megabytes(number: float) -> str:
    return f'{number / 1e6:.1f} MB' if number < 1e7 else f'{number / 1e6:.0f} MB'
