"""Tasks of a job, run by submitit as on this machine; a small program stands in for train.py.

submitit's local tasks differ from Slurm's only in that one which is to be queued again ends with
the code 144. ``squeue`` is a stand-in too.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE
from tiny_run import ROOT, environment

from mmsam.cluster_job import TrainingJob, _last_words
from mmsam.engine.distributed import leave_to_torchrun

TRAINING = """
import json
import os
import signal
import sys
import time
from pathlib import Path

told = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: told.append(True))
folder, rank = Path.cwd(), os.environ['SUBMITIT_LOCAL_GLOBALID']
saved = folder / f'saved_{rank}'
(folder / f'runs_{rank}').write_text(f'{os.getpid()} {saved.exists()}')
while not (folder / 'done').exists():
    if (folder / f'fail_{rank}').exists():
        words = dict(message='DataError: no mask.', extraInfo=dict(exit_code=3))
        Path(os.environ['TORCHELASTIC_ERROR_FILE']).write_text(json.dumps(dict(message=words)))
        sys.exit(3)
    if (folder / f'follow_{rank}').exists():
        sys.exit(1)
    if told and 'nothing to save' in sys.argv:
        sys.exit(128 + signal.SIGTERM)
    if told and 'stuck' not in sys.argv:
        saved.touch()
        Path('last_checkpoint').touch()
        sys.exit(75)
    time.sleep(0.02)
"""

JOB = '7'


class Tasks:
    """Both tasks of a job in a folder, and what they left there."""

    def __init__(self, folder: Path, *args: str, seconds_to_save: int = 60) -> None:
        self.folder = folder
        (folder / 'training.py').write_text(TRAINING)
        (folder / 'squeue').write_text('#!/bin/sh\ncat state\n')
        (folder / 'squeue').chmod(0o755)
        self.now('RUNNING')
        self.command = [sys.executable, str(folder / 'training.py'), *args]
        self.seconds_to_save = seconds_to_save
        self.pickle = JobPaths(folder, JOB).submitted_pickle
        self.processes: list[subprocess.Popen] = []

    def now(self, state: str) -> None:
        """Have ``squeue`` say so."""
        (self.folder / 'state').write_text(f'{state}\n')

    def submit(self) -> None:
        submission = DelayedSubmission(TrainingJob(self.command, self.folder, self.seconds_to_save))
        submission.set_timeout(60, 3)
        submission.dump(self.pickle)

    def start(self) -> None:
        command = [ROOT / 'tools' / 'submitit_task.py', '-u', '-m', 'submitit.core._submit']
        for rank in range(2):
            variables = environment(
                PATH=f'{self.folder}:{os.environ["PATH"]}', SUBMITIT_PREEMPT_SIGNAL='USR1',
                SUBMITIT_EXECUTOR='local', SUBMITIT_LOCAL_JOB_ID=JOB, SUBMITIT_LOCAL_NTASKS='2',
                SUBMITIT_LOCAL_GLOBALID=str(rank), SUBMITIT_LOCAL_LOCALID=str(rank),
            )  # fmt: skip
            with (self.folder / f'log_{rank}').open('w') as log:
                process = subprocess.Popen(
                    [sys.executable, '-u', *command, self.folder],
                    cwd=self.folder, env=variables, stdout=log, stderr=log,
                )  # fmt: skip
            self.processes.append(process)

    def wait_for(self, name: str, text: str) -> None:
        """Until the files ``name`` of both ranks hold the text."""
        paths = [self.folder / f'{name}_{rank}' for rank in range(2)]
        end = time.monotonic() + 60
        while not all(path.exists() and text in path.read_text() for path in paths):
            assert time.monotonic() < end, self.logs()
            time.sleep(0.02)

    def trainings(self) -> list[list[str]]:
        """Of each rank: process id, and whether it found something to go on from."""
        return [(self.folder / f'runs_{rank}').read_text().split() for rank in range(2)]

    def signal(self, number: int, *ranks: int) -> None:
        for rank in ranks:
            self.processes[rank].send_signal(number)

    def ends(self, rank: int) -> int:
        return self.processes[rank].wait(timeout=60)

    def logs(self) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob('log_*'))]


@contextlib.contextmanager
def started(tasks: Tasks) -> Iterator[Tasks]:
    """The tasks; neither they nor their trainings are left over."""
    tasks.processes = []
    for path in tasks.folder.glob('runs_*'):
        path.unlink()
    tasks.start()
    try:
        yield tasks
    finally:
        (tasks.folder / 'done').touch()
        for process in tasks.processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(tasks: Tasks) -> Iterator[Tasks]:
    """The tasks, whose trainings run."""
    with started(tasks):
        tasks.wait_for('runs', ' ')
        yield tasks


def test_a_stopped_job_is_queued_again_and_goes_on(tmp_path):
    tasks = Tasks(tmp_path)
    tasks.submit()
    with running(tasks):
        assert [found for _, found in tasks.trainings()] == ['False', 'False']
        tasks.signal(signal.SIGTERM, 0, 1)
        assert tasks.ends(0) == LOCAL_REQUEUE_RETURN_CODE
        assert tasks.processes[1].poll() is None  # its end would end the job
        assert (tmp_path / 'saved_1').exists()
        tasks.signal(signal.SIGTERM, 1)  # as the queue does
        assert tasks.ends(1) == 75
    (tmp_path / 'done').unlink()
    again = pickle.loads(tasks.pickle.read_bytes())
    assert again.function.command == tasks.command
    with running(tasks):
        assert [found for _, found in tasks.trainings()] == ['True', 'True']
        (tmp_path / 'done').touch()
        assert [tasks.ends(rank) for rank in range(2)] == [0, 0]
    for rank in range(2):
        result = (tmp_path / f'{JOB}_{rank}_result.pkl').read_bytes()
        assert pickle.loads(result) == ('success', None)


def test_a_cancelled_job_is_not_queued_again(tmp_path):
    tasks = Tasks(tmp_path)
    tasks.submit()
    with running(tasks):
        before = tasks.pickle.stat().st_mtime_ns
        tasks.now('COMPLETING')
        tasks.signal(signal.SIGTERM, 0, 1)
        assert tasks.ends(0) == 75
        assert (tmp_path / 'saved_0').exists()
        assert tasks.pickle.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ('how', 'number', 'saves'),
    [
        ('stuck', signal.SIGUSR1, True),
        ('stuck', signal.SIGTERM, False),
        ('nothing to save', signal.SIGTERM, False),
    ],
)
def test_a_training_that_does_not_save_now(tmp_path, how, number, saves):
    """It is too slow, or has done nothing yet; it has saved before, or was pre-empted."""
    tasks = Tasks(tmp_path, how, seconds_to_save=1 if how == 'stuck' else 60)
    tasks.submit()
    with running(tasks):
        if saves:
            (tmp_path / 'last_checkpoint').touch()
        tasks.signal(number, 0, 1)
        assert tasks.ends(0) == LOCAL_REQUEUE_RETURN_CODE
        assert not list(tmp_path.glob('saved_*'))


@pytest.mark.parametrize('is_first', [True, False])
def test_a_start_that_has_saved_nothing_within_the_time_limit_is_the_last(tmp_path, is_first):
    tasks = Tasks(tmp_path, 'stuck', seconds_to_save=1)
    tasks.submit()
    if not is_first:
        (tmp_path / 'last_checkpoint').touch()
    with running(tasks):
        before = tasks.pickle.stat().st_mtime_ns
        tasks.signal(signal.SIGUSR1, 0, 1)
        assert [tasks.ends(rank) for rank in range(2)] == [5, 5]
        assert tasks.pickle.stat().st_mtime_ns == before
    for log in tasks.logs():
        *_, who, words = log.splitlines()
        assert who == 'Rank 0 ended the job:'
        assert words.startswith('LaunchError: expected a checkpoint within the time limit')


def test_a_signal_before_the_task_can_follow_it(tmp_path):
    tasks = Tasks(tmp_path)
    with started(tasks):
        tasks.wait_for('log', 'Loading pickle')  # which is not there yet
        tasks.signal(signal.SIGTERM, 0)
        tasks.submit()
        assert tasks.ends(0) == LOCAL_REQUEUE_RETURN_CODE
        assert not (tmp_path / 'runs_0').exists()


def test_all_tasks_end_with_the_first_failure(tmp_path):
    tasks = Tasks(tmp_path, 'stuck')  # as one that waits for the other
    tasks.submit()
    with running(tasks):
        (tmp_path / 'fail_1').touch()
        assert tasks.ends(1) == 3
        tasks.signal(signal.SIGTERM, 0)  # as Slurm does when a task has failed
        assert tasks.ends(0) == 3
    for log in tasks.logs():
        assert log.splitlines()[-2:] == ['Rank 1 ended the job:', 'DataError: no mask.']


def test_a_failure_that_follows_from_the_first(tmp_path):
    tasks = Tasks(tmp_path)
    tasks.submit()
    with running(tasks):
        os.kill(int(tasks.trainings()[1][0]), signal.SIGKILL)
        assert tasks.ends(1) == 128 + signal.SIGKILL
        (tmp_path / 'follow_0').touch()
        assert tasks.ends(0) == 128 + signal.SIGKILL
    for log in tasks.logs():
        assert log.splitlines()[-2:] == ['Rank 1 ended the job:', 'It was killed by SIGKILL.']


def test_last_words_are_those_of_the_tools(tmp_path, monkeypatch):
    path = tmp_path / 'error.json'
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(path))
    leave_to_torchrun('StorageError: no room.\n', 6)
    assert _last_words(path, 1) == ('StorageError: no room.', 6)


@pytest.mark.parametrize('content', [None, '', '{"message": "text"}', json.dumps(dict(message={}))])
def test_without_last_words(tmp_path, content):
    path = tmp_path / 'error.json'
    if content is not None:
        path.write_text(content)
    words, code = _last_words(path, 9)
    assert code == 9 and words.startswith('It ended with exit code 9; ')
