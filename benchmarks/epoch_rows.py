"""Whole trainings through the Runner: against the tutorial's loop and a loop without a Runner."""

import gc
import itertools
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmsam.datasets
import mmsam.evaluation
import mmsam.models
import mmsam.visualization  # noqa: F401
from mmsam.checkpoint import save_stock_weights
from mmsam.engine import SAMRunner
from mmsam.engine.loader_workers import kill_workers

from .encoder_rows import padded_image, page_prompts
from .pages import Page, draw_page, write_pages
from .peers import ROOT, TutorialLoop, model_config, our_sam, their_sam
from .rows import Measurement, Row, Scale
from .timing import all_threads, measurement, threads

_CONFIG = ROOT / 'configs' / 'sam_stamp_boxes.py'
_ONE_PROMPT = 'epoch_1_prompt_vs_tutorial'
_EIGHT_PROMPTS = 'epoch_8_prompts_vs_tutorial'
_TEN_EPOCHS = 'ten_epochs_with_cache_1_prompt_vs_tutorial'
_OVERHEAD = 'runner_overhead'

_ERROR = dict(max_error=1e-4, error_of='of the logits before the training, relative')

ROWS = (
    Row(
        _ONE_PROMPT,
        'an epoch from the second on, 1 prompt an image, vs the tutorial',
        required=60.0,
        **_ERROR,
    ),
    Row(
        _EIGHT_PROMPTS,
        'an epoch from the second on, 8 prompts an image, vs the tutorial',
        required=10.0,
        **_ERROR,
    ),
    Row(
        _TEN_EPOCHS,
        'ten epochs with the building of the cache, 1 prompt, vs ten of the tutorial',
        required=30.0,
        needs_fast_bf16=True,
        **_ERROR,
    ),
    Row(
        _OVERHEAD,
        'an iteration of the Runner vs one of a bare loop',
        required=1.05,
        at_most=True,
        peers=(),
    ),
)

_BATCH = 2

_RUNS = itertools.count()


def measure(wanted: frozenset[str], scale: Scale) -> dict[str, Measurement]:
    """The rows of ``wanted``."""
    results = {}
    if wanted.intersection((_ONE_PROMPT, _TEN_EPOCHS)):
        results[_ONE_PROMPT], results[_TEN_EPOCHS] = _against_tutorial(scale, 1)
    if _EIGHT_PROMPTS in wanted:
        few_epochs = replace(scale, epochs=min(scale.epochs, 4))
        results[_EIGHT_PROMPTS], _ = _against_tutorial(few_epochs, 8)
    if _OVERHEAD in wanted:
        results[_OVERHEAD] = _overhead(scale)
    return {name: result for name, result in results.items() if name in wanted}


def _against_tutorial(scale: Scale, prompts: int) -> tuple[Measurement, Measurement]:
    """An epoch from the second on, and all epochs with the cache's building, by wall time."""
    pages = [
        draw_page(scale.page_size, prompts, object_sides=(0.1, 0.3), seed=seed)
        for seed in range(scale.epoch_images)
    ]
    sam = their_sam(scale)
    tutorial = TutorialLoop(sam, pages)
    error = _logits_error(scale, tutorial, pages[0])
    epochs, whole, their_epochs = [], [], []
    with tempfile.TemporaryDirectory() as name, threads(all_threads()):
        folder = Path(name)
        write_pages(folder / 'data', pages, 'annotations_train.json')
        save_stock_weights(sam.state_dict(), folder / 'sam.pth')
        tutorial.step(0)  # warm; ours is, from the second epoch on
        for number in range(scale.rounds):
            if prompts == 1:  # its cache's building is timed, too
                shutil.rmtree(folder / 'embeddings', ignore_errors=True)
            run = train(scale, prompts, folder, folder / f'round_{number}')
            epochs.append(run.seconds_of_later_epochs / (scale.epochs - 1))
            whole.append(run.seconds)
            gc.collect()
            start = time.perf_counter()
            for index in range(scale.tutorial_images):
                tutorial.step(index)
            seconds = time.perf_counter() - start
            their_epochs.append(seconds / scale.tutorial_images * scale.epoch_images)
    facts = dict(images=scale.epoch_images, tutorial_images_timed=scale.tutorial_images)
    return (
        measurement(epochs, their_epochs, 's', error=error, facts=facts),
        measurement(
            whole,
            [scale.epochs * seconds for seconds in their_epochs],
            's',
            error=error,
            facts=facts | dict(epochs=scale.epochs),
        ),
    )


def _logits_error(scale: Scale, tutorial: TutorialLoop, page: Page) -> float:
    """Largest difference of the logits of both models, relative to the largest logit."""
    model = our_sam(scale, tutorial.sam.state_dict())
    with torch.no_grad():
        embedding = model.image_encoder(padded_image(model, page))
        ours = model.decode_best(embedding, page_prompts(model, page))[0]
        theirs = tutorial.low_res_masks(tutorial.data[0])
    return float((ours - theirs).abs().max() / theirs.abs().max())


def training_config(
    scale: Scale, prompts: int, folder: Path, work_dir: Path, max_iters: int
) -> Config:
    """``sam_stamp_boxes.py`` on the pages of ``folder``, without flips and without validation.

    The tutorial neither flips nor validates.
    """
    config = Config.fromfile(_CONFIG)
    config.model = dict(config.model, **model_config(scale, config.model.frozen))
    config.work_dir = str(work_dir)
    config.experiment_name = f'benchmark_{next(_RUNS)}'  # mmengine keeps what it logs by this name
    config.log_level = 'WARNING'
    config.load_from = str(folder / 'sam.pth') if (folder / 'sam.pth').exists() else None
    config.embedding_cache = dict(folder=str(folder / 'embeddings'))
    steps = [step for step in config.train_pipeline if step.type != 'RandomPromptedFlip']
    for step in steps:
        if 'image_size' in step:
            step.image_size = scale.img_size
        if 'max_objects' in step:
            step.max_objects = prompts
    config.train_dataloader.dataset.update(data_root=str(folder / 'data'), pipeline=steps)
    config.train_dataloader.batch_size = _BATCH
    config.train_cfg.update(max_iters=max_iters, val_interval=max_iters + 1)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    return config


class _Clock(Hook):
    """CPU and wall seconds from the making of this to the end of each iteration's step."""

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.start = _clocks()
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        cpu, wall = _clocks()
        self.cpu.append(cpu - self.start[0])
        self.wall.append(wall - self.start[1])


@dataclass(frozen=True)
class Run:
    """Seconds of a training: of all its epochs with what comes before, and of all but the first."""

    seconds: float
    seconds_of_later_epochs: float
    cpu_of_later_epochs: float


def train(
    scale: Scale, prompts: int, folder: Path, work_dir: Path, in_this_process: bool = False
) -> Run:
    """Train with everything that the config has; leaves nothing behind but the embedding cache.

    Args:
        scale: the epochs, and the images of each.
        prompts: of each image.
        folder: as ``training_config``.
        work_dir: new.
        in_this_process: load the data here, so that its CPU time is that of this process.
    """
    iterations = scale.epoch_images // _BATCH
    config = training_config(scale, prompts, folder, work_dir, scale.epochs * iterations)
    if in_this_process:
        config.train_dataloader.update(num_workers=0, persistent_workers=False)
    runner = SAMRunner.from_cfg(config)
    clock = _Clock()
    runner.register_hook(clock)
    with _quiet():
        runner.train()
    kill_workers()  # garbage collection would wait 5 s for each
    shutil.rmtree(work_dir)  # its checkpoints would soon fill a disk
    return Run(
        seconds=clock.wall[-1],
        seconds_of_later_epochs=clock.wall[-1] - clock.wall[iterations - 1],
        cpu_of_later_epochs=clock.cpu[-1] - clock.cpu[iterations - 1],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of a training on the screen; its files are as ever."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class _BareLoop(Hook):
    """After every ``block`` iterations of the Runner, as many of a loop that only trains.

    Both load their data in this process, so that neither has batches ready that were loaded while
    the other one's clock ran.

    Args:
        block: iterations.
    """

    priority = 'HIGHEST'

    def __init__(self, block: int) -> None:
        self.block = block
        self.cpu: dict[str, list[float]] = {'runner': [], 'bare': []}
        self.wall: dict[str, list[float]] = {'runner': [], 'bare': []}
        self.start = (0.0, 0.0)

    def before_train(self, runner: Runner) -> None:
        self.batches = iter(runner.train_dataloader)
        self.start = _clocks()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if (runner.iter + 1) % self.block:
            return
        self._note('runner')
        for _ in range(self.block):
            runner.model.train_step(next(self.batches), runner.optim_wrapper)
        self._note('bare')

    def _note(self, name: str) -> None:
        now = _clocks()
        self.cpu[name].append(now[0] - self.start[0])
        self.wall[name].append(now[1] - self.start[1])
        self.start = _clocks()


def _clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _overhead(scale: Scale) -> Measurement:
    """CPU time of iterations through the Runner, relative to those of a bare loop."""
    pages = [
        draw_page(scale.page_size, 1, object_sides=(0.1, 0.3), seed=seed) for seed in range(_BATCH)
    ]
    hook = _BareLoop(scale.iterations)
    with tempfile.TemporaryDirectory() as name, threads(1):
        folder = Path(name)
        write_pages(folder / 'data', pages, 'annotations_train.json')
        iterations = scale.iterations * (scale.rounds + 1)
        config = training_config(scale, 1, folder, folder / 'run', iterations)
        config.train_dataloader.update(num_workers=0, persistent_workers=False)
        runner = SAMRunner.from_cfg(config)
        runner.register_hook(hook)
        with _quiet():
            runner.train()
    wall = zip(hook.wall['runner'][1:], hook.wall['bare'][1:], strict=True)
    return measurement(
        hook.cpu['runner'][1:],
        hook.cpu['bare'][1:],
        's CPU',
        at_most=True,
        facts=dict(wall_ratio_of_one_thread=median(ours / bare for ours, bare in wall)),
    )
