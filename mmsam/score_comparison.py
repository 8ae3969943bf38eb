"""Scores of the same prompts before and after a change of the weights, and ``results.json``."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prettytable import PrettyTable

RESULTS_FILE = 'results.json'
"""In the work dir of a training."""

WORST_SHOWN = 10
"""Of what became worse, so many are named in a log; a file names all."""

BASELINE_PREFIX = 'box_fill_'
"""Scores whose name starts with this belong to the filled box, not to the model."""


@dataclass
class Results:
    """Contents of ``results.json``; scores as the metrics return them, without their prefix."""

    before: dict[str, float]
    after: dict[str, float]
    box_fill: dict[str, float]
    images_worse: list[dict[str, Any]]
    iteration: int
    images: dict[str, dict[str, float]]

    @classmethod
    def empty(cls, iteration: int = 0) -> 'Results':
        return cls({}, {}, {}, [], iteration, {})


class ScoreRow(NamedTuple):
    """One score of the filled box and of both weights; None where it was not measured."""

    name: str
    box_fill: float | None
    before: float | None
    after: float | None

    @property
    def gain(self) -> float | None:
        if self.before is None or self.after is None:
            return None
        return self.after - self.before


def read_results(work_dir: Path) -> Results | None:
    """The ``results.json`` of a work dir; None if it is missing, damaged or something else."""
    try:
        return Results(**json.loads((work_dir / RESULTS_FILE).read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError):
        return None


def split_scores(metrics: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Finite scores of the model and of the filled box, by name without the metric's prefix.

    A name that two metrics share keeps its prefix, and so does the filled box's score of that name.

    Args:
        metrics: as an evaluator returns them; what is no scalar is left out.
    """
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
        own_name = name.removeprefix(BASELINE_PREFIX)
        prefix = full_name.removesuffix(name)
        is_shared = max(names.count(name), names.count(own_name)) > 1
        shown = f'{prefix}{own_name}' if is_shared else own_name
        (scores if own_name == name else box_fill)[shown] = score
    return scores, box_fill


def image_scores_of(metrics: Iterable[Any]) -> dict[str, float]:
    """Score by image path, on the main rank; empty where no metric offers it.

    Args:
        metrics: of an evaluator; the first one with an attribute ``image_scores`` counts.
    """
    return next((dict(m.image_scores) for m in metrics if hasattr(m, 'image_scores')), {})


def object_scores_of(metrics: Iterable[Any]) -> dict[str, list[dict[str, Any]]]:
    """Scores of each object by image path, on the main rank; empty where no metric offers them.

    Args:
        metrics: of an evaluator; the first one with an attribute ``object_scores`` counts.
    """
    return next((dict(m.object_scores) for m in metrics if hasattr(m, 'object_scores')), {})


def worse_images(images: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """``image``, ``before``, ``after`` of each image whose score fell, the largest fall first.

    Args:
        images: ``before`` and ``after`` of every image, by path; either may be missing.
    """
    worse = [
        {'image': path, 'before': score['before'], 'after': score['after']}
        for path, score in images.items()
        if score.get('after', math.inf) < score.get('before', -math.inf)
    ]
    return sorted(worse, key=lambda entry: entry['after'] - entry['before'])


def worse_objects(
    before: Mapping[str, Sequence[Mapping[str, Any]]],
    after: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """``image``, ``object``, ``before``, ``after`` of each object whose IoU fell, by fall.

    Args:
        before: scores of each object, ``iou`` among them, by image path; ``object`` is the place.
        after: the same objects.
    """
    worse = [
        {'image': path, 'object': number, 'before': first['iou'], 'after': second['iou']}
        for path, scores in before.items()
        for number, (first, second) in enumerate(zip(scores, after[path], strict=True))
        if second['iou'] < first['iou']
    ]
    return sorted(worse, key=lambda entry: entry['after'] - entry['before'])


def lines_of_worse(worse: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first entries of ``worse_images`` or ``worse_objects`` for a log, a line each."""
    lines = []
    for entry in worse[:WORST_SHOWN]:
        what = f'object {entry["object"]} of ' if 'object' in entry else ''
        lines.append(f'  {entry["before"]:.4f} -> {entry["after"]:.4f}  {what}{entry["image"]}')
    if len(worse) > WORST_SHOWN:
        lines.append(f'  ... and {len(worse) - WORST_SHOWN} more')
    return lines


def score_rows(
    before: Mapping[str, float], after: Mapping[str, float], box_fill: Mapping[str, float]
) -> list[ScoreRow]:
    """One row per score, those of ``before`` first."""
    return [
        ScoreRow(name, box_fill.get(name), before.get(name), after.get(name))
        for name in {**before, **after}
    ]


def score_table(rows: Sequence[ScoreRow], before: str, after: str) -> str:
    """The rows as a table of text.

    Args:
        rows: of ``score_rows``.
        before: heading of the scores before.
        after: heading of the scores after.
    """
    table = PrettyTable(['score', 'box fill', before, after, 'gain'], align='r')
    table.align['score'] = 'l'
    for row in rows:
        scores = map(format_score, (row.box_fill, row.before, row.after))
        table.add_row([row.name, *scores, format_gain(row.gain)])
    return str(table)


def format_score(score: float | None) -> str:
    """With four decimals; ``-`` for None."""
    return '-' if score is None else f'{score:.4f}'


def format_gain(gain: float | None) -> str:
    """With its sign and four decimals; ``-`` for None."""
    return '-' if gain is None else f'{gain:+.4f}'
