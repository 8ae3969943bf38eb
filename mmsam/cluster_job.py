"""A training as a job of a cluster: told to stop, it saves, is queued again and goes on."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NoReturn

from submitit import JobEnvironment
from submitit.helpers import Checkpointable

from mmsam.errors import LaunchError, StoppedError

STOP_SIGNAL = 'USR1'
"""By which Slurm announces the end of the time; train.py gets it from Slurm too and follows it.

``SUBMITIT_PREEMPT_SIGNAL`` must name it in the job.
"""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_GOES_ON = ('', 'RUNNING', 'SIGNALING')
"""Of ``squeue``: a job that was cancelled is in another state."""


class TrainingJob(Checkpointable):
    """What submitit runs in each task of a job: one rank of a training, as a child process.

    SIGTERM (pre-emption) and SIGUSR1 (the time is nearly over) are passed on as SIGTERM, which
    train.py follows by saving and ending with code 75. Then the first rank has submitit queue the
    job again: ``checkpoint`` gives the same job, whose ``command`` goes on from what is saved. A
    start that saves nothing until its time is nearly over is the last one.

    Where a rank fails, all tasks end with its exit code and print its last words.
    """

    def __init__(self, command: list[str], work_dir: Path, seconds_to_save: int) -> None:
        """
        Args:
            command: starts one rank, which reads Slurm's variables and goes on where it can.
            work_dir: of the training, absolute.
            seconds_to_save: after a signal; then the training is killed, and goes on from what it
                had saved before.
        """
        self.command = command
        self.work_dir = work_dir
        self.seconds_to_save = seconds_to_save

    def __call__(self) -> None:
        """Return when the training is done; end the process where it failed or was stopped."""
        queue_again = signal.getsignal(signal.SIGUSR1)
        environment = JobEnvironment()
        folder, rank = environment.paths.folder, environment.global_rank
        restarts = os.environ.get('SLURM_RESTART_COUNT', '0')
        first_failure = _FirstFailure(folder / f'{environment.job_id}_{restarts}_failure.json')

        saved_before = self._saved()
        task = _Task(self.seconds_to_save, first_failure)
        with TemporaryDirectory() as error_folder:
            error_path = Path(error_folder) / 'error.json'
            code = task.run(self.command, error_path)
            if code == 0:
                return
            # above 128: it followed the signal, but had saved nothing since its start
            by_signal = code < 0 or code > 128
            stopped = code == StoppedError.exit_code or (task.stopped_by and by_signal)
            if first_failure.path.exists() or not stopped:
                first_failure.end(rank, *_last_words(error_path, code))
        if rank == 0:
            if task.stopped_by == signal.SIGUSR1 and self._saved() == saved_before:
                words = (
                    'LaunchError: expected a checkpoint within the time limit of each start, got '
                    f'none in {self.work_dir} from this one: raise --timeout-hours.'
                )
                first_failure.end(rank, words, LaunchError.exit_code)
            if not _is_cancelled(environment.job_id):
                assert callable(queue_again)
                queue_again(signal.SIGUSR1, None)  # ends the process
        else:
            # the end of one task ends the job, which the first rank has to queue again before
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
            signal.sigtimedwait(_STOP_SIGNALS, self.seconds_to_save)
            if first_failure.path.exists():
                first_failure.end(rank, *_last_words(error_path, code))
        sys.exit(StoppedError.exit_code)

    def _saved(self) -> int | None:
        """When a checkpoint was completed last, in ns: its name is written then."""
        try:
            return (self.work_dir / 'last_checkpoint').stat().st_mtime_ns
        except OSError:
            return None


class _FirstFailure:
    """Which rank failed first and why; those that fail after it mostly do so because of it."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: file of the first failure, in a folder that all machines share.
        """
        self.path = path

    def end(self, rank: int, words: str, code: int) -> NoReturn:
        """End the process with the words and the code of the first failure, this one perhaps."""
        failure: dict[str, Any] = dict(rank=rank, words=words, code=code)
        with suppress(OSError, ValueError):  # a full disk may be why it failed
            own_path = self.path.with_suffix(f'.{rank}')
            own_path.write_text(json.dumps(failure), encoding='utf-8')
            with suppress(FileExistsError):
                os.link(own_path, self.path)
            own_path.unlink()
            failure = json.loads(self.path.read_text(encoding='utf-8'))
        print(f'Rank {failure["rank"]} ended the job:\n{failure["words"]}', file=sys.stderr)
        sys.exit(failure['code'])


class _Task:
    """The training of one rank, as a child process that is stopped by this one's signals."""

    def __init__(self, seconds_to_save: int, first_failure: _FirstFailure) -> None:
        self.stopped_by: int | None = None
        """The first signal."""
        self._seconds_to_save = seconds_to_save
        self._first_failure = first_failure
        self._process: subprocess.Popen | None = None
        for number in _STOP_SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        # held back by tools/submitit_task.py
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def run(self, command: list[str], error_path: Path) -> int:
        """Run the command to its end; its exit code, negative where a signal killed it."""
        if self.stopped_by:
            return -signal.SIGTERM
        environment = {**os.environ, 'TORCHELASTIC_ERROR_FILE': str(error_path)}
        self._process = subprocess.Popen(command, env=environment)
        if self.stopped_by:  # before there was a process to pass it on to
            self._process.terminate()
        code = self._process.wait()
        signal.alarm(0)
        return code

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.stopped_by:
            signal.alarm(self._seconds_to_save)
            self.stopped_by = number
        if self._process is None:
            return
        if self._first_failure.path.exists():
            self._process.kill()  # another rank failed: this one would wait for it
        else:
            self._process.terminate()

    def _kill(self, number: int, frame: FrameType | None) -> None:
        if self._process is not None:
            self._process.kill()


def _last_words(error_path: Path, code: int) -> tuple[str, int]:
    """What a failed rank says, and its exit code; the file is that of ``apis.run_tool``."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        message = json.loads(error_path.read_text(encoding='utf-8'))['message']
        return message['message'].rstrip(), message['extraInfo']['exit_code']
    if code < 0:
        return f'It was killed by {signal.Signals(-code).name}.', 128 - code
    return f'It ended with exit code {code}; what it printed stands in its log.', code


def _is_cancelled(job_id: str) -> bool:
    """Whether Slurm is ending the job for good; ``scontrol requeue`` would revive it."""
    try:
        squeue = subprocess.run(
            ['squeue', '--noheader', '--format=%T', f'--jobs={job_id}'],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return squeue.stdout.strip() not in _GOES_ON
