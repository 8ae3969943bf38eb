"""Where the time of a training step goes, for a config, and the time of a sample in the pipeline.

    python benchmarks/step_profile.py configs/sam_stamp.py [--iterations 20] [--options KEY=VALUE]

Trains so many iterations through the runner, with every hook of the config but those that validate
or write, from the weights that the model has when it is built. Times are wall time in ms: of a step
the mean over its iterations after the first ones, each moment counted once (what is computed again
for the backward pass counts as what it is); of a sample in a single process, by transform. Data are
no bottleneck where 'data' is near 0: the step never waits for the loader.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from mmsam.apis.run_config import load_run_config
from mmsam.engine import SAMRunner
from mmsam.engine.hooks import StallHook, StopHook

WARM_UP = 3
"""Iterations that do not count."""

LEFT_OUT = {'ZeroShotHook', 'PromptedPictureHook', 'StockWeightsHook', 'ReportHook'}
"""Hooks of a validation, or of the end of a training."""

PARTS = (
    'data', 'preprocess', 'encode', 'decode', 'loss', 'rest of forward',
    'backward', 'clip and update', 'hooks', 'rest of the runner',
)  # fmt: skip
REST_OF_SAMPLE = 'rest of the data set'


class PartClock:
    """Adds up seconds by the innermost part that is running."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running = ['rest of the runner']
        self._last = time.perf_counter()

    def start(self, part: str) -> None:
        self._charge()
        self._running.append(part)

    def stop(self) -> None:
        self._charge()
        self._running.pop()

    def _charge(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._running[-1]] += now - self._last
        self._last = now

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        self.start(part)
        yield
        self.stop()

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Time every call of a method as a part."""
        method: Callable = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running(part):
                return method(*args, **kwargs)

        setattr(owner, name, timed)


class ProfileHook(Hook):
    """Begins once the loss is in its slot; the first iterations are forgotten."""

    priority = 'LOWEST'

    def __init__(self, clock: PartClock) -> None:
        self.clock = clock

    def before_train(self, runner: SAMRunner) -> None:
        clock, model, wrapper = self.clock, runner.model, runner.optim_wrapper
        for owner, name, part in (
            (model.data_preprocessor, 'forward', 'preprocess'),
            (model, 'forward', 'rest of forward'),
            (model, 'encode_images', 'encode'),
            (model, 'decode', 'decode'),
            (model.mask_loss, 'forward', 'loss'),
            (wrapper, 'backward', 'backward'),
            (wrapper, 'update_params', 'clip and update'),
        ):
            clock.watch(owner, name, part)
        call_hook = runner.call_hook

        def timed_hooks(name: str, **kwargs: Any) -> None:
            if name == 'before_train_iter':
                clock.stop()  # the data are there
            with clock.running('hooks'):
                call_hook(name, **kwargs)
            if name == 'after_train_iter':
                if kwargs['batch_idx'] == WARM_UP - 1:
                    clock.seconds.clear()
                clock.start('data')

        runner.call_hook = timed_hooks
        clock.start('data')


def profiled_training(config: Config, iterations: int) -> tuple[SAMRunner, dict[str, float]]:
    """A runner that has trained, and the milliseconds of each part of an iteration."""
    config.load_from, config.launcher, config.log_level = None, 'none', 'WARNING'
    config.train_cfg.max_iters = WARM_UP + iterations
    for name in ('val', 'test'):
        config[f'{name}_cfg'] = config[f'{name}_dataloader'] = config[f'{name}_evaluator'] = None
    config.custom_hooks = [hook for hook in config.custom_hooks if hook['type'] not in LEFT_OUT]
    config.default_hooks.checkpoint = None
    clock = PartClock()
    runner = SAMRunner.from_cfg(config)
    for hook in (StallHook(), StopHook(), ProfileHook(clock)):
        runner.register_hook(hook)
    runner.train()
    return runner, {part: 1e3 * clock.seconds[part] / iterations for part in PARTS}


def sample_times(loader: DataLoader, number: int) -> dict[str, float]:
    """Milliseconds of each transform of a sample, and of what is around the pipeline."""
    clock = PartClock()
    names = {REST_OF_SAMPLE: None}
    for transform in loader.dataset.pipeline.transforms:
        names[type(transform).__name__] = None
        clock.watch(transform, 'transform', type(transform).__name__)
    clock.watch(loader.dataset, 'prepare_data', REST_OF_SAMPLE)
    for index in islice(iter(loader.sampler), number):
        loader.dataset[index]
    return {name: 1e3 * clock.seconds[name] / number for name in names}


def show(title: str, times: dict[str, float]) -> None:
    total = sum(times.values())
    print(f'\n{title}')
    for name, milliseconds in {**times, 'all': total}.items():
        print(f'  {name:24s} {milliseconds:9.2f} ms {milliseconds / total:7.1%}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('--iterations', type=int, default=20, metavar='N')
    parser.add_argument('--options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = load_run_config(args.config, args.options, folder)
        runner, times = profiled_training(config, args.iterations)
        loader = runner.train_dataloader
        batch = f'{loader.batch_size} images, {loader.num_workers} workers'
        threads = f'{torch.get_num_threads()} of {os.cpu_count()} threads'
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else threads
        show(f'An iteration of {args.config} ({batch}) on {device}', times)
        show('A sample of its pipeline, in one process', sample_times(loader, args.iterations))


if __name__ == '__main__':
    main()
