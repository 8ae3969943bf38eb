"""How the cost of a training step grows: with the pixels of the original image and the prompts."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from mmengine.registry import DefaultScope

from mmsam.datasets.samplers import EpochIndex
from mmsam.engine.optim_wrappers import SAMOptimWrapper
from mmsam.registry import DATASETS, MODELS

from .epoch_rows import train, training_config
from .memory import memory_ratio, step_memory
from .pages import draw_page, write_pages
from .rows import Measurement, Row, Scale
from .timing import interleaved, measurement, threads

_PIXELS = {4: 'step_time_4x_pixels', 16: 'step_time_16x_pixels'}
_CROWDS = (1, 8, 64, 375)
"""Numbers of prompts of an image; the last is timed only once."""

_CROWD_MEMORY = 'step_memory_375_prompts_vs_64'


def _crowd_row(crowd: int) -> str:
    return f'step_time_per_prompt_{crowd}_vs_8'


ROWS = (
    Row(
        _PIXELS[4],
        'an iteration, originals of 4 times the pixels',
        at_most=True,
        peers=(),
    ),
    Row(
        _PIXELS[16],
        'an iteration, originals of 16 times the pixels',
        required=1.1,
        at_most=True,
        peers=(),
    ),
    *(
        Row(
            _crowd_row(crowd),
            f'time a prompt of a training step, {crowd} vs 8 prompts',
            at_most=True,
            peers=(),
        )
        for crowd in _CROWDS
        if crowd != 8
    ),
    Row(
        _CROWD_MEMORY,
        'memory of a training step, 375 vs 64 prompts',
        at_most=True,
        peers=(),
    ),
)

_WINDOWED = dict(embed_dim=48, depth=1, num_heads=3, global_attn_indexes=(), window_size=14)
"""An image encoder that costs next to nothing: its work is the cache's."""


def measure(wanted: frozenset[str], scale: Scale) -> dict[str, Measurement]:
    """The rows of ``wanted``."""
    scale = replace(scale, arch=_WINDOWED)
    results = {}
    if wanted.intersection(_PIXELS.values()):
        results |= _by_pixels(scale)
    if wanted.intersection(map(_crowd_row, _CROWDS)):
        results |= _by_prompts(scale)
    if _CROWD_MEMORY in wanted:
        few, many = (step_memory(training_step, scale, crowd) for crowd in _CROWDS[-2:])
        results[_CROWD_MEMORY] = memory_ratio(many, few)
    return {name: result for name, result in results.items() if name in wanted}


def _by_pixels(scale: Scale) -> dict[str, Measurement]:
    """CPU time of a Runner's iteration with one prompt an image, which it loads itself."""
    scale = replace(scale, epoch_images=2)
    times: dict[int, list[float]] = {factor: [] for factor in (1, *_PIXELS)}
    with tempfile.TemporaryDirectory() as name, threads(1):
        for factor in times:
            height, width = (round(side * factor**0.5) for side in scale.page_size)
            pages = [
                draw_page((height, width), 1, object_sides=(0.1, 0.3), seed=seed)
                for seed in range(scale.epoch_images)
            ]
            write_pages(Path(name, str(factor), 'data'), pages, 'annotations_train.json')
        for number in range(scale.rounds):
            for factor, seconds in times.items():
                folder = Path(name, str(factor))
                run = train(scale, 1, folder, folder / f'round_{number}', in_this_process=True)
                seconds.append(run.cpu_of_later_epochs / (scale.epochs - 1))
    return {
        row: measurement(times[factor], times[1], 's CPU', at_most=True)
        for factor, row in _PIXELS.items()
    }


def _by_prompts(scale: Scale) -> dict[str, Measurement]:
    """Wall time of a step, divided by its prompts; the largest crowd is timed once."""
    *crowds, most = _CROWDS
    steps = {crowd: training_step(scale, crowd) for crowd in crowds}
    times = interleaved(steps, scale.rounds, with_cpu=False).wall
    once = interleaved({most: training_step(scale, most)}, 1, with_cpu=False, warm=False).wall
    times = {**times, most: once[most] * scale.rounds}
    a_prompt = {crowd: [each / crowd for each in seconds] for crowd, seconds in times.items()}
    return {
        _crowd_row(crowd): measurement(
            seconds,
            a_prompt[8],
            's',
            at_most=True,
            facts=dict(seconds_of_the_step=median(times[crowd])),
        )
        for crowd, seconds in a_prompt.items()
    }


def training_step(scale: Scale, prompts: int) -> Callable[[], object]:
    """A step of the mask decoder with ``prompts`` boxes of one image and the config's loss.

    The image's embedding is random.
    """
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = draw_page(scale.page_size, prompts, object_sides=(0.02, 0.05))
        write_pages(folder / 'data', [page], 'annotations_train.json')
        config = training_config(scale, prompts, folder, folder / 'run', max_iters=1)
        with DefaultScope.overwrite_default_scope('mmsam'):
            model = MODELS.build(config.model).train()
            (hook,) = (hook for hook in config.custom_hooks if hook.type == 'MaskLossHook')
            model.mask_loss = MODELS.build(hook.loss)
            sample = DATASETS.build(config.train_dataloader.dataset)[EpochIndex(0, 0, 0)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wrapper = SAMOptimWrapper(torch.optim.AdamW(trained, lr=1e-4))
    side = scale.img_size // 16
    batch = dict(
        image_embeddings=[torch.randn(256, side, side)], data_samples=[sample['data_samples']]
    )
    return lambda: model.train_step(batch, wrapper)
