"""Training through a real Slurm: several nodes, pre-emption, a lost node; see slurm_lab.py."""

import os
import re
import time
from pathlib import Path

import pytest
from slurm_lab import SlurmLab, slurm_lab, why_not
from tiny_run import (
    ROOT,
    environment,
    equal,
    finish,
    start,
    train_records,
    weights_of,
    write_config,
    write_dataset,
)

from mmsam.engine.slurm import host_names

pytestmark = pytest.mark.slurm

ITERATIONS = 12
OPTIONS = [
    '--options', f'train_cfg.max_iters={ITERATIONS}', f'train_cfg.val_interval={ITERATIONS}',
    'train_dataloader.batch_size=1', 'default_hooks.checkpoint.interval=5',
]  # fmt: skip

SLOW = """
custom_imports = dict(imports=['slow_iterations'])
default_hooks['slow'] = dict(type='SlowIterations')
"""

SLOW_HOOK = """
import time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SlowIterations(Hook):
    def after_train_iter(self, *args, **kwargs):
        time.sleep(0.4)
"""


@pytest.fixture(scope='module')
def lab():
    reason = why_not()
    if reason is not None:
        pytest.skip(f'no Slurm cluster here: {reason}')
    with slurm_lab(nodes=3, networks=True) as lab:
        yield lab


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('slurm')


@pytest.fixture(scope='module')
def config(folder):
    (folder / 'slow_iterations.py').write_text(SLOW_HOOK)
    return write_config(folder, write_dataset(folder / 'data'), extra=SLOW)


@pytest.fixture(scope='module')
def uninterrupted(config, folder):
    """Work dir of a run of two processes that torchrun started."""
    done = finish(
        start(
            'dist_train.sh', config, 2, '--work-dir', 'straight', *OPTIONS,
            cwd=folder, PYTHONPATH=f'{folder}:{ROOT}',
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / 'straight'


def launch(lab: SlurmLab, folder: Path, tool: str, *arguments: object, **variables: str):
    """Run a Slurm script: one process on each of two nodes, unless ``variables`` say otherwise."""
    own = environment(PYTHONPATH=f'{folder}:{ROOT}', GPUS='2', GPUS_PER_NODE='1', CPUS_PER_TASK='1')
    own |= variables
    for name in ('PATH', 'SLURM_CONF'):
        own[name] = lab.environment[name]
    path = str(ROOT / 'tools' / tool)
    return lab.run(path, *map(str, arguments), cwd=folder, timeout=300, variables=own)


class Job:
    """A batch job of ``slurm_train.sh``."""

    def __init__(self, lab: SlurmLab, folder: Path, config: Path, work_dir: str) -> None:
        done = launch(
            lab, folder, 'slurm_train.sh', 'dev', work_dir, config, work_dir, *OPTIONS, BATCH='1'
        )
        assert done.returncode == 0, done.stderr
        match = re.fullmatch(r'Job (\d+)\. Log: (.+)\. Cancel: scancel \1\n', done.stdout)
        assert match, done.stdout
        self.lab, self.id, self.log = lab, match[1], folder / match[2]

    def shows(self, pattern: str, times: int = 1, seconds: float = 120) -> None:
        """Wait until the log has so many lines with the pattern."""
        end = time.monotonic() + seconds
        while True:
            text = self.log.read_text() if self.log.is_file() else ''
            if len(re.findall(pattern, text)) >= times:
                return
            assert time.monotonic() < end, f'no {pattern!r} ({times} times) in:\n{text[-4000:]}'
            time.sleep(0.1)

    def state(self, name: str) -> str:
        """A value of ``scontrol show job``."""
        shown = self.lab.run('scontrol', 'show', 'job', self.id).stdout
        return re.search(rf'\b{name}=(\S+)', shown)[1]

    def ends(self, seconds: float = 180) -> str:
        """Wait for the job's end; its last state."""
        end = time.monotonic() + seconds
        while (state := self.state('JobState')) in ('PENDING', 'RUNNING', 'COMPLETING'):
            assert time.monotonic() < end, f'{state}\n{self.log.read_text()[-4000:]}'
            time.sleep(0.3)
        return state


def iteration(number: int) -> str:
    return rf'Iter\(train\) +\[ *{number}/{ITERATIONS}\]'


def test_host_names_are_those_of_scontrol(lab):
    for names in (
        'n1',
        'n[1-3]',
        'n[01-03,7],gpu3',
        'r[1-2]n[08-11]',
        'a-b[9-11],c.d',
        'x[098-101]',
    ):
        listed = lab.run('scontrol', 'show', 'hostnames', names).stdout.split()
        assert host_names(names) == listed


def test_several_nodes_in_the_foreground(lab, folder, config, uninterrupted):
    done = launch(lab, folder, 'slurm_train.sh', 'dev', 'job', config, 'two nodes', *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert 'Asking partition dev for 2 GPUs, 1 on each of 2 node(s)' in done.stderr
    assert train_records(folder / 'two nodes').keys() == set(range(1, ITERATIONS + 1))
    name = f'iter_{ITERATIONS}.pth'
    assert equal(weights_of(folder / 'two nodes' / name), weights_of(uninterrupted / name))
    tested = launch(lab, folder, 'slurm_test.sh', 'dev', 'job', config, f'two nodes/{name}')
    assert tested.returncode == 0, tested.stderr
    assert 'mIoU' in tested.stdout


def test_pre_empted_three_times(lab, folder, config, uninterrupted):
    job = Job(lab, folder, config, 'pre-empted')
    for count, first in enumerate((1, 3, 6), start=1):
        job.shows(iteration(first))
        urgent = lab.run('srun', '-p', 'urgent', '-N3', '--exclusive', 'true', timeout=120)
        assert urgent.returncode == 0, urgent.stderr
        job.shows(f'Job {job.id} goes back to the queue', count)
    assert job.ends() == 'COMPLETED'
    assert job.state('Restarts') == '3'
    text = job.log.read_text()
    stopped = [
        int(number) for number in re.findall('SIGTERM: stopped after iteration (\\d+)', text)
    ]
    assert len(stopped) == 6 and stopped[0::2] == stopped[1::2]
    for number in stopped[::2]:
        assert re.search(rf'requeued and goes on from .*iter_{number}\.pth', text)
    name = f'iter_{ITERATIONS}.pth'
    assert equal(weights_of(folder / 'pre-empted' / name), weights_of(uninterrupted / name))


def test_a_cancelled_job_stays_away(lab, folder, config):
    job = Job(lab, folder, config, 'cancelled')
    job.shows(iteration(2))
    lab.run('scancel', job.id)
    assert job.ends() == 'CANCELLED'
    assert job.state('Restarts') == '0'
    assert 'goes back to the queue' not in job.log.read_text()


def test_an_unknown_partition(lab, folder, config):
    done = launch(lab, folder, 'slurm_train.sh', 'dve', 'job', config)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1] == (
        "LaunchError: partition 'dve' is unknown; there are: dev urgent cpu."
    )


def test_an_error_of_a_rank_is_the_job_s(lab, folder, config):
    missing = [*OPTIONS, 'train_dataloader.dataset.data_root=nowhere']
    done = launch(lab, folder, 'slurm_train.sh', 'cpu', 'job', config, *missing, GPUS='1')
    assert done.returncode == 3
    assert '1 CPU processes (the partition has no GPUs), 1 on each of 1 node(s)' in done.stderr
    assert 'nowhere' in next(line for line in done.stderr.splitlines() if 'DataError' in line)


@pytest.mark.skipif(os.environ.get('MMSAM_FAULTS') != 'full', reason='only in make test-slurm')
def test_a_lost_node(lab, folder, config, uninterrupted):
    """Last: the node does not come back. Slurm starts the job again on the two that are left."""
    job = Job(lab, folder, config, 'lost node')
    job.shows(iteration(6))
    lab.cut('n2')
    assert job.ends() == 'COMPLETED'
    assert job.state('Restarts') == '1'
    assert 'requeued and goes on from ' in job.log.read_text()
    name = f'iter_{ITERATIONS}.pth'
    assert equal(weights_of(folder / 'lost node' / name), weights_of(uninterrupted / name))
