"""Tests two weights on the same prompts and tells what became better, and what worse."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmsam.atomic_file import write_atomically, write_text_atomically
from mmsam.engine import SAMRunner
from mmsam.engine.agreement import raised_by_all
from mmsam.score_comparison import (
    image_scores_of,
    lines_of_worse,
    object_scores_of,
    score_rows,
    score_table,
    split_scores,
    worse_images,
    worse_objects,
)
from mmsam.visualization import draw_before_after
from mmsam.visualization.original_image import read_original
from mmsam.visualization.prediction_files import (
    ImageRecord,
    PredictionRecorder,
    paired_predictions,
)

COMPARISON_FILE = 'comparison.json'
"""In the work dir of the test."""


class _RecordTest(Hook):
    """Keeps what the last test predicted, on the main rank."""

    def __init__(self) -> None:
        self._recorder = PredictionRecorder({})
        self.records: list[ImageRecord] = []

    def before_test_epoch(self, runner: Runner) -> None:
        self._recorder = PredictionRecorder({})

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        self._recorder.add(outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        self.records = self._recorder.gather(len(runner.test_dataloader.dataset))


def compare_weights(runner: SAMRunner, stock: str, tuned: str, show_dir: str | None) -> None:
    """Test both weights; log a table, write ``WORK_DIR/comparison.json``, draw what became worse.

    The file has ``stock`` and ``tuned``, the paths of the weights; ``before`` and ``after``, the
    scores of the first and the second by name; ``box_fill``, those of the filled box; ``images``,
    ``before``, ``after`` and ``gain`` of each image by path, the largest fall first;
    ``images_worse`` and ``objects_worse``, see ``worse_images`` and ``worse_objects``.

    Args:
        runner: with the data of the test.
        stock: path or URL of the weights to compare with.
        tuned: path or URL of the weights to judge.
        show_dir: folder that gets a picture of truth, before and after of each image that became
            worse, numbered from the largest fall on; None draws nothing.

    Raises:
        CheckpointError: weights cannot be read, or do not fit.
        DataError: an image cannot be read again.
        StorageError: a file cannot be written.
    """
    recording = _RecordTest()
    if show_dir is not None:
        runner.register_hook(recording)
    before, box_fill, images_before, objects_before = _test(runner, stock)
    records_before = recording.records
    after, _, images_after, objects_after = _test(runner, tuned)
    images = {
        path: {'before': score, 'after': images_after[path], 'gain': images_after[path] - score}
        for path, score in images_before.items()
    }
    worse = worse_images(images)
    content = {
        'stock': stock,
        'tuned': tuned,
        'before': before,
        'after': after,
        'box_fill': box_fill,
        'images': dict(sorted(images.items(), key=lambda item: item[1]['gain'])),
        'images_worse': worse,
        'objects_worse': worse_objects(objects_before, objects_after),
    }
    with raised_by_all():
        if is_main_process():
            path = Path(runner.work_dir) / COMPARISON_FILE
            write_text_atomically(path, json.dumps(content, indent=1))
            if show_dir is not None:
                _draw(Path(show_dir), worse, records_before, recording.records)
            runner.logger.info(_report(content, path))


def _test(
    runner: SAMRunner, weights: str
) -> tuple[dict[str, float], dict[str, float], dict[str, float], dict[str, list[dict]]]:
    """Scores, those of the filled box, those of images and of objects; the last on one rank."""
    runner.logger.info(f'Test of {weights}:')
    metrics = runner.test_weights(weights)
    evaluated = runner.test_loop.evaluator.metrics
    return *split_scores(metrics), image_scores_of(evaluated), object_scores_of(evaluated)


def _draw(
    folder: Path,
    worse: Sequence[Mapping[str, Any]],
    before: Sequence[ImageRecord],
    after: Sequence[ImageRecord],
) -> None:
    images = paired_predictions(before, after)
    for number, entry in enumerate(worse):
        image = images[entry['image']]
        pixels = read_original(image.path, image.size, image.reading)
        picture = draw_before_after(pixels, image.truth, image.before, image.after)
        save = partial(Image.fromarray(picture).save, format='PNG')
        write_atomically(folder / f'{number:04d}_{Path(image.path).stem}.png', save)


def _report(content: Mapping[str, Any], path: Path) -> str:
    """The table, and what became worse."""
    rows = score_rows(content['before'], content['after'], content['box_fill'])
    lines = [f'{content["stock"]} (stock) and {content["tuned"]} (tuned):']
    lines.append(score_table(rows, 'stock', 'tuned'))
    images, objects = content['images_worse'], content['objects_worse']
    if content['images']:
        lines.append(f'Images that became worse: {len(images)} of {len(content["images"])}')
        lines += lines_of_worse(images)
    if objects:
        lines.append(f'Objects that became worse: {len(objects)}')
        lines += lines_of_worse(objects)
    return '\n'.join([*lines, f'All of it for machines: {path}'])
