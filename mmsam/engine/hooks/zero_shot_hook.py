"""Measures the model before training and shows what training changed."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from prettytable import PrettyTable

from mmsam.atomic_file import write_text_atomically
from mmsam.errors import StorageError
from mmsam.registry import HOOKS

RESULTS_FILE = 'results.json'
BASELINE_PREFIX = 'box_fill_'
"""Scores whose name starts with this belong to the filled box, not to the model."""

_WORST_SHOWN = 10
"""Images named in the log; the file names all of them."""


@dataclass
class Results:
    """Contents of ``results.json``; scores as the metrics return them, without their prefix."""

    before: dict[str, float]
    after: dict[str, float]
    box_fill: dict[str, float]
    images_worse: list[dict[str, Any]]
    iteration: int
    images: dict[str, dict[str, float]]


@HOOKS.register_module()
class ZeroShotHook(Hook):
    """Validate before the first iteration; compare every later validation with that.

    Each validation logs a table of the filled box, the scores before and now, and the gain; the
    end of training logs the last table again with the images that became worse. Both are in
    ``WORK_DIR/results.json`` from the first validation on, so that a stopped run has it too:

    - ``before``, ``after``: score by name, of the first and the last validation; ``after`` is empty
      until a validation followed the first one;
    - ``box_fill``: ``mIoU``, ``mDice`` of the filled box, if a metric offers them;
    - ``images_worse``: ``image``, ``before``, ``after`` of each image whose score fell, the largest
      fall first;
    - ``iteration``: updates made before the last validation;
    - ``images``: ``before`` and ``after`` of every image, by path.

    The scores of single images come from the first metric with an attribute ``image_scores``
    (path to score), as ``PromptedMaskMetric`` has it. A name that two metrics share keeps its
    prefix.

    A resumed run takes the first scores from the ``results.json`` of its work dir; without it, it
    warns and shows no gain. Without validation the hook does nothing.

    The first validation is an ordinary one: the other hooks see it as iteration 0. With
    ``save_best``, the untrained weights are the first best checkpoint, and a later one is better
    than them. Hence the priority: at the lowest, the first validation starts after every other
    hook, ``CheckpointHook`` above all, got ready for training.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._results: Results | None = None

    def before_train(self, runner: Runner) -> None:
        """Validate, or read back what a resumed run measured before it was stopped."""
        if runner.val_loop is None:
            runner.logger.info('ZeroShotHook: no validation configured, nothing to compare.')
            return
        if runner.iter == 0:
            self._results = Results({}, {}, {}, [], 0, {})
            runner.logger.info('Validation before the first iteration:')
            runner.val_loop.run()
        else:
            self._results = _read_back(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Record the scores, write the file, log the table."""
        results = self._results
        if results is None:  # a validation outside of training
            return
        scores, results.box_fill = _split_scores(metrics or {})
        if runner.iter == 0:
            stage, results.before = 'before', scores
        else:
            stage, results.after = 'after', scores
        results.iteration = runner.iter
        for path, score in _image_scores(runner.val_loop.evaluator.metrics).items():
            results.images.setdefault(path, {})[stage] = score
        results.images_worse = _worse_images(results.images)
        if is_main_process():
            text = json.dumps(asdict(results), indent=1)
            try:
                write_text_atomically(Path(runner.work_dir) / RESULTS_FILE, text)
            except StorageError as error:
                runner.logger.error(f'{error} The run goes on, the next validation tries again.')
        runner.logger.info(_report(results))

    def after_train(self, runner: Runner) -> None:
        """Log the final table and the images that became worse."""
        results = self._results
        if results is None:
            return
        worse = results.images_worse
        lines = ['Result of the training. ' + _report(results)]
        if results.images and results.before and results.after:
            lines.append(f'Images that became worse: {len(worse)} of {len(results.images)}')
        lines += [
            f'  {entry["before"]:.4f} -> {entry["after"]:.4f}  {entry["image"]}'
            for entry in worse[:_WORST_SHOWN]
        ]
        if len(worse) > _WORST_SHOWN:
            lines.append(f'  ... and {len(worse) - _WORST_SHOWN} more')
        lines.append(f'All of it for machines: {Path(runner.work_dir) / RESULTS_FILE}')
        runner.logger.info('\n'.join(lines))


def _read_back(runner: Runner) -> Results:
    """The results a resumed run wrote before it was stopped; empty ones if they are missing."""
    path = Path(runner.work_dir) / RESULTS_FILE
    try:
        return Results(**json.loads(path.read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError):
        runner.logger.warning(
            f'ZeroShotHook: the scores before training are not in {path}; '
            'the tables of this run show no gain.'
        )
        return Results({}, {}, {}, [], runner.iter, {})


def _split_scores(metrics: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Finite scores of the model and of the filled box, by name without the metric's prefix."""
    names = [name.rpartition('/')[2] for name in metrics]
    scores: dict[str, float] = {}
    box_fill: dict[str, float] = {}
    for (full_name, value), name in zip(metrics.items(), names, strict=True):
        try:
            score = float(value)
        except (TypeError, ValueError, RuntimeError):  # not a scalar (RuntimeError: a tensor)
            continue
        if not math.isfinite(score):
            continue
        if names.count(name) > 1:
            name = full_name
        if name.startswith(BASELINE_PREFIX):
            box_fill[name.removeprefix(BASELINE_PREFIX)] = score
        else:
            scores[name] = score
    return scores, box_fill


def _image_scores(metrics: Iterable[Any]) -> dict[str, float]:
    """Score by image path, on the main rank; empty where no metric offers it."""
    return next((dict(m.image_scores) for m in metrics if hasattr(m, 'image_scores')), {})


def _worse_images(images: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    worse = [
        {'image': path, 'before': score['before'], 'after': score['after']}
        for path, score in images.items()
        if score.get('after', math.inf) < score.get('before', -math.inf)
    ]
    return sorted(worse, key=lambda entry: entry['after'] - entry['before'])


def _report(results: Results) -> str:
    """Headline and table of the scores."""
    table = PrettyTable(['score', 'box fill', 'before', 'now', 'gain'], align='r')
    table.align['score'] = 'l'
    for name in {**results.before, **results.after}:
        before, after = results.before.get(name), results.after.get(name)
        gain = '-' if before is None or after is None else f'{after - before:+.4f}'
        table.add_row([name, *map(_format, (results.box_fill.get(name), before, after)), gain])
    return f'Scores after {results.iteration} iterations:\n{table}'


def _format(score: float | None) -> str:
    return '-' if score is None else f'{score:.4f}'
