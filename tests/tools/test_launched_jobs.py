"""Jobs of several processes under launch_torchrun.sh: how they start, fail and are killed.

A launcher killed in a training run: tests/faults.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import usual_port
from processes import children, is_alive, wait_until
from tiny_run import ROOT, environment

SECONDS_UNTIL_ALL_ARE_GONE = 5
SECONDS_UNTIL_A_JOB_ENDS = 10


@pytest.fixture(scope='module', autouse=True)
def _nobody_beside() -> Iterator[None]:
    with usual_port():
        yield


TOOL = """
import argparse
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

from mmsam.apis import add_common_arguments, run_tool
from mmsam.engine import init_distributed
from mmsam import stop_signal
from mmsam.errors import DataError, StoppedError


def note(name):
    Path(f'{name}_{os.environ["RANK"]}').write_text(str(os.getpid()))


def main(args):
    init_distributed(args.launcher)
    dist.all_reduce(torch.ones(1))
    note('runs')
    told = torch.zeros(1)
    while not told and (args.config in ('endless', 'listens') or not Path('raise').exists()):
        told.fill_(stop_signal.received() is not None)
        dist.all_reduce(told)
        time.sleep(0.05)
    if dist.get_rank() == 1:
        raise DataError('Expected a mask, got none, in image 7.')
    if args.config == 'deaf':
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(100)
    if told:
        raise StoppedError('saved.')
    dist.all_reduce(torch.ones(1))


parser = argparse.ArgumentParser()
add_common_arguments(parser)
args = parser.parse_args()
if args.config == 'slow imports':
    note('imports')
    while not Path('go').exists():
        time.sleep(0.05)
if args.config == 'listens':
    stop_signal.listen()
run_tool(main, args)
"""

GATHER = """
import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

dist.init_process_group('gloo')
jobs = [None] * dist.get_world_size()
dist.all_gather_object(jobs, sys.argv[1])
Path(f'{sys.argv[1]}_{dist.get_rank()}').write_text(json.dumps([jobs, os.environ['MASTER_PORT']]))
dist.barrier()
sys.stdout.flush()
os._exit(0)
"""


@contextlib.contextmanager
def launched(script: str, folder: Path, *args: str, ranks: int = 2) -> Iterator[subprocess.Popen]:
    """A job of ``script`` without PORT, in ``folder``; killed at the end, should it still run."""
    tool = folder / 'tool.py'
    tool.write_text(script)
    path = os.path.relpath(tool, ROOT / 'tools')
    variables = environment(CUDA_VISIBLE_DEVICES='')
    for name in ('PORT', 'MASTER_PORT'):
        variables.pop(name, None)
    job = subprocess.Popen(
        [ROOT / 'tools' / 'launch_torchrun.sh', path, str(ranks), *args],
        cwd=folder, env=variables, text=True,
        stdout=subprocess.DEVNULL, stderr=(folder / f'stderr of {args[0]}').open('w'),
        start_new_session=True,
    )  # fmt: skip
    try:
        yield job
    finally:
        # torchrun puts each worker into a session of its own
        for process in [job.pid, *children(job.pid), *noted(folder)]:
            if is_alive(process):
                os.kill(process, signal.SIGKILL)
        job.wait()


def noted(folder: Path) -> list[int]:
    """Process ids that ranks of ``TOOL`` have written."""
    paths = [*folder.glob('runs_*'), *folder.glob('imports_*')]
    return [int(text) for text in (path.read_text() for path in paths) if text]


def workers(folder: Path, name: str, job: subprocess.Popen) -> list[int]:
    """Ids of both ranks, as soon as both have written the file ``name``."""
    paths = [folder / f'{name}_{rank}' for rank in range(2)]
    written = wait_until(
        lambda: job.poll() is not None or all(p.is_file() and p.read_text() for p in paths), 120
    )
    told = ''.join(path.read_text() for path in folder.glob('stderr of *'))
    assert written and job.poll() is None, told[-3000:]
    return [int(path.read_text()) for path in paths]


def test_jobs_started_at_once_without_a_port(tmp_path):
    names = ('one', 'two', 'three')
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(launched(GATHER, tmp_path, name)) for name in names]
        codes = [job.wait(timeout=120) for job in jobs]
    told = {name: (tmp_path / f'stderr of {name}').read_text() for name in names}
    assert codes == [0, 0, 0], told
    ports = set()
    for name in names:
        gathered = {(tmp_path / f'{name}_{rank}').read_text() for rank in range(2)}
        (text,) = gathered
        assert text.startswith(f'[["{name}", "{name}"], ')
        ports.add(text)
        others = [line for line in told[name].splitlines() if line.startswith('PORT not given')]
        assert len(others) <= 1
    assert len(ports) == 3


@pytest.mark.parametrize('other_rank', ['until told', 'deaf'])
def test_an_error_of_one_rank_stands_last(tmp_path, other_rank):
    with launched(TOOL, tmp_path, other_rank) as job:
        workers(tmp_path, 'runs', job)
        start = time.monotonic()
        (tmp_path / 'raise').touch()
        assert job.wait(timeout=60) == 3
        assert time.monotonic() - start < SECONDS_UNTIL_A_JOB_ENDS
    lines = (tmp_path / f'stderr of {other_rank}').read_text().splitlines()
    assert lines[-2:] == [
        'Rank 1 ended the job:',
        'DataError: Expected a mask, got none, in image 7.',
    ]


def test_a_killed_rank_ends_the_job(tmp_path):
    with launched(TOOL, tmp_path, 'endless') as job:
        first, second = workers(tmp_path, 'runs', job)
        start = time.monotonic()
        os.kill(second, signal.SIGKILL)
        assert job.wait(timeout=60) == 128 + signal.SIGKILL
        assert time.monotonic() - start < SECONDS_UNTIL_A_JOB_ENDS
        assert not is_alive(first)
    lines = (tmp_path / 'stderr of endless').read_text().splitlines()
    assert lines[-1] == 'Rank 1 was killed by SIGKILL, which ended the job.'


def test_an_error_after_a_signal_is_the_job_s(tmp_path):
    """It may be that a rank could not save; 75 would hide it."""
    with launched(TOOL, tmp_path, 'listens') as job:
        workers(tmp_path, 'runs', job)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=60) == 3
    lines = (tmp_path / 'stderr of listens').read_text().splitlines()
    assert lines[-2:] == [
        'Rank 1 ended the job:',
        'DataError: Expected a mask, got none, in image 7.',
    ]


def test_a_launcher_killed_during_the_imports(tmp_path):
    with launched(TOOL, tmp_path, 'slow imports') as job:
        processes = workers(tmp_path, 'imports', job)
        job.kill()
        job.wait()
        (tmp_path / 'go').touch()
        gone = wait_until(lambda: not any(map(is_alive, processes)), SECONDS_UNTIL_ALL_ARE_GONE)
    assert gone
    assert not list(tmp_path.glob('runs_*'))
    text = (tmp_path / 'stderr of slow imports').read_text()
    assert text.count('LaunchError: Expected the launcher') == 2
