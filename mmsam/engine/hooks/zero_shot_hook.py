"""Measures the model before training and shows what training changed."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsam.atomic_file import write_text_atomically
from mmsam.errors import StorageError
from mmsam.registry import HOOKS
from mmsam.score_comparison import (
    RESULTS_FILE,
    Results,
    image_scores_of,
    lines_of_worse,
    read_results,
    score_rows,
    score_table,
    split_scores,
    worse_images,
)


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
            self._results = Results.empty()
            runner.logger.info('Validation before the first iteration:')
            runner.val_loop.run()
        else:
            self._results = _read_back(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Record the scores, write the file, log the table."""
        results = self._results
        if results is None:  # a validation outside of training
            return
        scores, results.box_fill = split_scores(metrics or {})
        if runner.iter == 0:
            stage, results.before = 'before', scores
        else:
            stage, results.after = 'after', scores
        results.iteration = runner.iter
        for path, score in image_scores_of(runner.val_loop.evaluator.metrics).items():
            results.images.setdefault(path, {})[stage] = score
        results.images_worse = worse_images(results.images)
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
        lines += lines_of_worse(worse)
        lines.append(f'All of it for machines: {Path(runner.work_dir) / RESULTS_FILE}')
        runner.logger.info('\n'.join(lines))


def _read_back(runner: Runner) -> Results:
    """The results a resumed run wrote before it was stopped; empty ones if they are missing."""
    results = read_results(Path(runner.work_dir))
    if results is None:
        runner.logger.warning(
            'ZeroShotHook: the scores before training are not in '
            f'{Path(runner.work_dir) / RESULTS_FILE}; the tables of this run show no gain.'
        )
        return Results.empty(runner.iter)
    return results


def _report(results: Results) -> str:
    """Headline and table of the scores."""
    rows = score_rows(results.before, results.after, results.box_fill)
    return f'Scores after {results.iteration} iterations:\n{score_table(rows, "before", "now")}'
