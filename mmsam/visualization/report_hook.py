"""Keeps the report of a training up to date while it runs."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mmcv
import mmengine
import mmseg
import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmsam import __version__
from mmsam.atomic_file import write_text_atomically
from mmsam.errors import StorageError
from mmsam.registry import HOOKS
from mmsam.visualization.prediction_files import (
    AFTER_FILE,
    BEFORE_FILE,
    ImageRecord,
    PredictionRecorder,
    write_predictions,
    write_truth,
)
from mmsam.visualization.report import REPORT_FILE, write_report
from mmsam.visualization.report.run_record import PREDICTIONS_FOLDER, START_FILE, Start


@HOOKS.register_module()
class ReportHook(Hook):
    """Write ``WORK_DIR/report.html`` after every validation and at the end of a training.

    The page is made of files of the work dir alone, so that ``tools/analysis_tools/report.py``
    makes it again at any time. The hook adds two kinds to those that are there anyway:

    - ``predictions/``: ``truth.json``, a COCO data set of the validation's objects, and as COCO
      results for it ``before.json`` (before the first iteration) and ``latest.json``; not of models
      whose outputs are no ``SAMDataSample`` with a mask per true object;
    - ``TIMESTAMP/start.json``: command, seed and versions of each start, and how far it came.

    Scores of single images come from ``ZeroShotHook``, which has to stand before it. What cannot be
    made or written is announced as an error, and costs a training nothing else.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._recorder = PredictionRecorder({})
        self._is_training = False

    def before_run(self, runner: Runner) -> None:
        # in a test, or a validation alone, no training loop is built
        self._is_training = isinstance(runner._train_loop, BaseLoop)
        if self._is_training and is_main_process():
            with _announced(runner):
                _write_start(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self._recorder = PredictionRecorder(_metainfo(runner))

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        if self._is_training:
            self._recorder.add(outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        if not self._is_training:
            return
        records = self._recorder.gather(len(runner.val_dataloader.dataset))
        if is_main_process():
            with _announced(runner):
                if records:
                    _keep(records, runner)
                _write_start(runner)
                write_report(Path(runner.work_dir))

    @master_only
    def after_train(self, runner: Runner) -> None:
        with _announced(runner):
            _write_start(runner)
            runner.logger.info(f'Report: {write_report(Path(runner.work_dir))}')


def _keep(records: Sequence[ImageRecord], runner: Runner) -> None:
    folder = Path(runner.work_dir) / PREDICTIONS_FOLDER
    write_truth(folder, records, _metainfo(runner))
    if runner.iter == 0:
        (folder / AFTER_FILE).unlink(missing_ok=True)  # of an earlier run
        write_predictions(folder / BEFORE_FILE, records)
    else:
        write_predictions(folder / AFTER_FILE, records)


@contextmanager
def _announced(runner: Runner) -> Iterator[None]:
    """Log what goes wrong with the report instead of ending the run."""
    try:
        yield
    except StorageError as error:
        runner.logger.error(f'{error} The training itself is not affected.')
    except Exception as error:  # a mistake of the report's own: it is not worth a training
        path = Path(runner.work_dir) / REPORT_FILE
        runner.logger.exception(
            f'{path} could not be written ({type(error).__name__}: {error}); the training itself '
            'is not affected.'
        )


def _metainfo(runner: Runner) -> dict[str, Any]:
    return getattr(runner.val_dataloader.dataset, 'metainfo', {})


def _write_start(runner: Runner) -> None:
    """How this start of the run was made, and how far the run is."""
    command = os.environ.get('MMSAM_COMMAND')  # of the launch script that was called
    start = Start(
        runner.timestamp,
        config=runner.cfg.filename,
        command=command.strip() if command else shlex.join(['python', *sys.argv]),
        seed=runner.seed,
        processes=runner.world_size,
        max_iterations=runner.max_iters,
        iterations=runner.iter,
        resumed=runner._resume,
        weights=runner._load_from,
        versions={
            'mmsam': __version__,
            'torch': torch.__version__,
            'mmengine': mmengine.__version__,
            'mmcv': mmcv.__version__,
            'mmseg': mmseg.__version__,
            'Python': platform.python_version(),
        },
    )
    content = {name: value for name, value in asdict(start).items() if name != 'timestamp'}
    path = Path(runner.work_dir) / runner.timestamp / START_FILE
    write_text_atomically(path, json.dumps(content, indent=1))
