import atexit
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from processes import wait_until
from tiny_run import ROOT, environment, equal, refused, run_here, start, weights_of, write_config

from tools import launch

TRAIN = str(ROOT / 'tools' / 'train.py')
TWO_STEPS = ['--options', 'train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2']


@pytest.fixture
def config(data, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_config(tmp_path, data)


def resolved_of(command: list[str]) -> Path:
    """The config that the processes of a start read."""
    return Path(command[command.index(TRAIN) + 1])


# --------------------------------------------------------------------------------------- locally


def test_two_processes_on_this_machine(config, tmp_path, monkeypatch):
    """The command that replaces launch.py is caught, which spares its imports, and runs."""
    starts = []
    monkeypatch.setattr(os, 'execve', lambda program, *start: starts.append(start))
    run_here(
        launch, config, '--num-gpus', 2, '--no-validate', '--work-dir', "it's here", *TWO_STEPS,
        'train_dataloader.batch_size=1',
    )  # fmt: skip
    folder = tmp_path / "it's here"
    ((command, variables),) = starts
    written = resolved_of(command).read_bytes()
    assert not (folder / 'config_resolved.py').exists()
    done = subprocess.run(
        command,
        env={**variables, **environment(CUDA_VISIBLE_DEVICES='')},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saved = torch.load(folder / 'iter_2.pth', weights_only=True)
    assert (saved['meta']['world_size'], saved['meta']['batch_size']) == (2, 1)
    assert (folder / 'config_resolved.py').read_bytes() == written  # by the run, what it used
    assert saved['meta']['cfg'] == written.decode()
    (record,) = folder.glob('*/start.json')  # for report.html: what the user typed
    typed = f'python {launch.__file__} {config} --num-gpus 2 --no-validate --work-dir'
    assert json.loads(record.read_text())['command'].startswith(typed)


def test_both_configs(config, tmp_path, monkeypatch):
    """A later start in the same folder leaves those of an earlier one alone."""
    commands = []
    monkeypatch.setattr(os, 'execve', lambda program, command, _: commands.append(command))
    run_here(launch, config, '--num-gpus', 3, '--seed', 5, '--work-dir', 'here', *TWO_STEPS)
    run_here(launch, config, '--seed', 6, '--work-dir', 'here', '--auto-resume')
    first, second = map(resolved_of, commands)
    assert first.parents[1] == second.parents[1] == tmp_path / 'here' / 'launches'
    assert Config.fromfile(second).randomness.seed == 6
    assert ['--auto-resume' in command for command in commands] == [False, True]
    given = first.with_name('config.py').read_text()
    comment, _, rest = given.partition('\n\n')
    assert rest == config.read_text()
    assert comment.startswith(f'# {config}, launched by\n# python ')
    assert '--num-gpus 3 --seed 5 --work-dir here --options train_cfg.max_iters=2' in comment
    resolved = Config.fromfile(first)
    expected = Config.fromfile(config)
    expected.merge_from_dict({
        'train_cfg.max_iters': 2, 'default_hooks.checkpoint.interval': 2, 'randomness.seed': 5,
        'work_dir': 'here', 'launcher': 'pytorch', 'experiment_name': resolved.experiment_name,
    })  # fmt: skip
    assert resolved.to_dict() == expected.to_dict()


def test_the_experiment_and_its_folder_have_the_configs_name(config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'execve', lambda program, command, variables: None)
    monkeypatch.setattr(sys, 'argv', ['launch.py', str(config)])
    launch.main(launch.parse_args())
    (resolved,) = (tmp_path / 'work_dirs' / 'tiny').glob('launches/*/config_resolved.py')
    assert Config.fromfile(resolved).experiment_name == 'tiny'


# --------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ('args', 'code', 'words'),
    [
        (['--num-nodes', 2], 5, '--num-nodes 2: several machines need --use-cluster'),
        (['--use-cluster', 0, '--num-nodes', 2], 5, 'several machines need --use-cluster'),
        (['--num-gpus', 0], 5, '--num-gpus: expected a number of at least 1, got 0.'),
        (['--num-nodes', -1, '--use-cluster'], 5, '--num-nodes: expected a number of at least 1'),
        (['--partition', 'dev'], 5, '--partition is for jobs: add --use-cluster.'),
        (['--timeout-hours', 2], 5, '--timeout-hours is for jobs'),
        (['--use-cluster', '--timeout-hours', 0.083], 5, 'expected at least 5 minutes (0.084)'),
        (['--use-cluster', '--timeout-hours', 'nan'], 5, 'got nan.'),
        (['--launcher', 'slurm'], 5, 'launch.py chooses the launcher itself'),
        (['--use-cluster', 2], 2, 'invalid choice: 2'),
        (['--resume-from', 'no.pth'], 4, 'no.pth: no such file'),
        (['--options', 'train_cfg.max_iter=3'], 2, 'did you mean max_iters?'),
        (['--use-cluster', '--options', 'optim_wrapper.optimizer.lr=x'], 2, 'optimizer.lr'),
    ],
)
def test_refused_before_anything_starts(config, tmp_path, capsys, monkeypatch, args, code, words):
    monkeypatch.setattr(os, 'execve', lambda *_: pytest.fail('it was launched'))
    monkeypatch.setattr(os, '_exit', sys.exit)  # with --launcher it would end this process
    # those of torch would take operators away that later tests need
    monkeypatch.setattr(atexit, '_run_exitfuncs', lambda: None)
    monkeypatch.setattr(launch, 'submit', launch.save_configs)
    found, line = refused(capsys, launch, config, *args, '--work-dir', 'run')
    assert (found, words in line) == (code, True), line
    assert not (tmp_path / 'run').exists()


def test_more_processes_than_gpus(config, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    code, line = refused(capsys, launch, config, '--num-gpus', 3)
    assert (code, line) == (
        5, 'LaunchError: --num-gpus: expected at most 2 on this machine, got 3.'
    )  # fmt: skip


def test_no_such_config(capsys):
    assert refused(capsys, launch, 'no.py') == (2, 'ConfigError: no.py: no such config file.')


# -------------------------------------------------------------------------------------- submitted

SBATCH = """#!/bin/sh
[ ! -e refuse ] || { echo 'sbatch: error: invalid partition specified: p' >&2; exit 1; }
cp "$1" sbatch_script
echo Submitted batch job 42
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """Stands in for Slurm's commands; ``sbatch_script`` is what was submitted."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, script in (('sbatch', SBATCH), ('srun', '')):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(folder), prepend=os.pathsep)
    return tmp_path / 'sbatch_script'


def parameters(script: Path) -> set[str]:
    lines = script.read_text().splitlines()
    return {line.removeprefix('#SBATCH ') for line in lines if line.startswith('#SBATCH')}


def test_a_job(config, slurm, tmp_path, capsys):
    run_here(
        launch, config, '--num-gpus', 2, '--num-nodes', 3, '--use-cluster', '--partition', 'p',
        '--account', 'a', '--qos', 'q', '--timeout-hours', 1.5, '--work-dir', 'run', '--debug',
        '--options', 'train_dataloader.num_workers=3',
    )  # fmt: skip
    assert parameters(slurm) >= {
        '--partition=p', '--account=a', '--qos=q', '--time=90', '--nodes=3', '--gpus-per-node=2',
        '--ntasks-per-node=2', '--cpus-per-task=4', '--requeue', '--signal=USR1@300',
    }  # fmt: skip
    lines = slurm.read_text().splitlines()
    assert 'export SUBMITIT_PREEMPT_SIGNAL=USR1' in lines
    (command,) = (line for line in lines if line.startswith('export MMSAM_COMMAND='))
    (_, value) = shlex.split(command)
    typed = ['python', launch.__file__, str(config), '--num-gpus', '2', '--num-nodes', '3']
    assert shlex.split(value.partition('=')[2])[:7] == typed
    srun = next(line for line in lines if line.startswith('srun '))
    assert '--kill-on-bad-exit=1' in srun and '--cpus-per-task=4' in srun
    assert f'{ROOT}/tools/submitit_task.py -u -m submitit.core._submit {tmp_path}/run/' in srun
    logs = tmp_path / 'run' / 'submitit_logs'
    job = pickle.loads((logs / '42_submitted.pkl').read_bytes()).function
    resolved = resolved_of(job.command)
    assert job.command == [
        sys.executable, '-u', TRAIN, str(resolved), '--launcher', 'slurm', '--debug',
    ]  # fmt: skip
    assert (job.work_dir, job.seconds_to_save) == (tmp_path / 'run', 225)
    assert Config.fromfile(resolved).launcher == 'slurm'
    assert resolved.is_absolute() and resolved.with_name('config.py').is_file()
    printed = capsys.readouterr().out
    for words in ('Job 42: ', f'tail -F {logs}/42_0_log.out', 'squeue -j 42', 'scancel 42'):
        assert words in printed


def test_a_job_with_defaults(config, slurm):
    run_here(launch, config, '--use-cluster', 1, '--timeout-hours', 0.1)
    found = parameters(slurm)
    assert found >= {'--time=6', '--nodes=1', '--ntasks-per-node=1', '--signal=USR1@90'}
    asked = {parameter.partition('=')[0] for parameter in found}
    assert asked.isdisjoint({'--partition', '--account', '--qos'})


def test_slurm_refuses(config, slurm, tmp_path, capsys):
    (tmp_path / 'refuse').touch()
    code, line = refused(capsys, launch, config, '--use-cluster', '--partition', 'p')
    assert code == 5 and line.startswith('LaunchError: Slurm refuses the job: ')
    assert 'invalid partition specified: p' in line


def test_no_slurm_here(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    code, line = refused(capsys, launch, config, '--use-cluster')
    assert code == 5 and 'expected the commands of Slurm here' in line


def test_no_submitit(config, slurm, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    code, line = refused(capsys, launch, config, '--use-cluster')
    assert code == 5 and 'pip install mmsam[slurm]' in line


# -------------------------------------------------------------------------------------- real Slurm

SLOW = """
import time

from mmengine.hooks import Hook

from mmsam.registry import HOOKS


@HOOKS.register_module()
class SlowHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(0.5)
"""


def slurm_answers() -> bool:
    if 'SLURM_CONF' not in os.environ or shutil.which('sinfo') is None:
        return False
    return subprocess.run(['sinfo'], capture_output=True, timeout=30).returncode == 0


def of_slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.slurm
@pytest.mark.skipif(not slurm_answers(), reason='SLURM_CONF is not set, or sinfo does not answer')
def test_a_job_told_to_stop_ends_as_one_that_was_not(data, tmp_path):
    """Two machines with one process each; the one told to stop is queued again by itself."""
    (tmp_path / 'slow_hook.py').write_text(SLOW)
    extra = """
custom_imports = dict(imports=['slow_hook'])
custom_hooks = [*_base_.custom_hooks, dict(type='SlowHook')]
"""
    config = write_config(tmp_path, data, max_iters=10, extra=extra)
    variables = dict(PYTHONPATH=f'{ROOT}:{tmp_path}', CUDA_VISIBLE_DEVICES='')

    def submit(name: str) -> str:
        process = start(
            'launch.py', config, '--num-nodes', 2, '--use-cluster', '--timeout-hours', 1,
            '--no-validate', '--work-dir', name, cwd=tmp_path, **variables,
        )  # fmt: skip
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return out.partition('Job ')[2].partition(':')[0]

    def log(name: str) -> str:
        return ''.join(p.read_text() for p in (tmp_path / name).glob('submitit_logs/*_0_log.*'))

    def ended(job: str) -> bool:
        return not of_slurm('squeue', '-h', '-t', 'PD,R,CG', '-j', job)

    straight = submit('straight')
    assert wait_until(lambda: ended(straight), 180)
    stopped = submit('stopped')
    try:
        assert wait_until(lambda: 'Iter(train) [ 3/10]' in log('stopped'), 120)
        of_slurm('scancel', '--signal=TERM', stopped)
        assert wait_until(lambda: f'Requeued job {stopped}' in log('stopped'), 60)
        # else Slurm waits for two minutes before it starts a job again
        of_slurm('scontrol', 'update', f'job={stopped}', 'StartTime=now')
        assert wait_until(lambda: ended(stopped), 400)
    finally:
        of_slurm('scancel', straight, stopped)
    assert f'Slurm job {stopped} was requeued and goes on from' in log('stopped'), log('stopped')
    assert 'Restarts=1' in of_slurm('scontrol', 'show', 'job', stopped)
    final = [weights_of(tmp_path / name / 'iter_10.pth') for name in ('straight', 'stopped')]
    assert equal(*final)
