"""What the files of a work dir tell of a training, however many starts it had."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsam.score_comparison import Results, read_results
from mmsam.visualization.prediction_files import ImagePredictions, read_predictions

PREDICTIONS_FOLDER = 'predictions'
START_FILE = 'start.json'
"""In the folder of each start's logs: how it was started."""

Scalars = dict[str, float]
"""Finite numbers logged together, by name; ``step`` is the iteration (or epoch) they belong to."""


@dataclass
class Start:
    """One start of the run; a resumed run has several."""

    timestamp: str
    """Name of the folder of its logs, ``YYYYMMDD_HHMMSS``."""
    config: str | None = None
    command: str | None = None
    seed: int | None = None
    processes: int | None = None
    max_iterations: int | None = None
    iterations: int | None = None
    """Those the run had made, this start's and earlier ones', when the report was last written."""
    resumed: bool | None = None
    """False: another run began here, in the folder of an earlier one."""
    weights: str | None = None
    versions: dict[str, str] | None = None


@dataclass
class RunRecord:
    """A run as the report shows it; what is missing in the work dir is empty or None."""

    work_dir: Path
    starts: list[Start]
    training: list[Scalars]
    validation: list[Scalars]
    results: Results | None
    images: dict[str, ImagePredictions]


def read_run(work_dir: Path) -> RunRecord:
    """Read all that a report needs, of the last run in the folder.

    Damaged files and lines count as missing.
    """
    starts: list[Start] = []
    training: list[Scalars] = []
    validation: list[Scalars] = []
    for folder in sorted(path.parent for path in work_dir.glob('*/vis_data')):
        records = list(_scalars_in(folder / 'vis_data' / 'scalars.json'))
        start = _read_start(folder)
        if not records and start.command is None:
            continue  # of a test
        if start.resumed is False:
            starts, training, validation = [], [], []
        starts.append(start)
        # only records of the training carry the iteration beside the step
        training = _joined(training, [record for record in records if 'iter' in record])
        validation = _joined(validation, [record for record in records if 'iter' not in record])
    if starts and starts[0].resumed is False and not validation:
        # a training without validation in the folder of an earlier one, whose scores are there
        return RunRecord(work_dir, starts, training, validation, None, {})
    return RunRecord(
        work_dir,
        starts,
        training,
        validation,
        read_results(work_dir),
        read_predictions(work_dir / PREDICTIONS_FOLDER),
    )


def _scalars_in(path: Path) -> Iterator[Scalars]:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        if isinstance(record, dict) and 'step' in record:
            yield {key: value for key, value in record.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _read_start(folder: Path) -> Start:
    try:
        content = json.loads((folder / START_FILE).read_text(encoding='utf-8'))
        return Start(folder.name, **content)
    except (OSError, ValueError, TypeError):
        return Start(folder.name)


def _joined(earlier: list[Scalars], later: list[Scalars]) -> list[Scalars]:
    """A start repeats what an earlier one logged behind the checkpoint it goes on from."""
    if not later:
        return earlier
    first = later[0]['step']
    return [record for record in earlier if record['step'] < first] + later
