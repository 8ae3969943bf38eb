"""The shell scripts: what they start, and whole runs of two processes."""

import contextlib
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked_ranks import Ranks
from ports import free_port, usual_port
from tiny_run import (
    ROOT,
    environment,
    equal,
    finish,
    run_here,
    start,
    weights_of,
    write_config,
)

from tools import train

# ----------------------------------------------------------------- what the scripts hand on


TORCHRUN = """
import os, pathlib

def parse_args(arguments):
    note = pathlib.Path({arguments!r})
    note.write_text('\\n'.join(arguments) + '\\n')
    note.with_name('command').write_text(os.environ.get('MMSAM_COMMAND', ''))

def run(args):
    pass
"""


@pytest.fixture
def stand_in(tmp_path):
    """Stands in for Slurm and torchrun: notes its arguments, one a line, and MMSAM_COMMAND.

    srun also notes MASTER_PORT.
    """
    folder = tmp_path / 'bin'
    folder.mkdir()
    note = tmp_path / 'arguments'
    (folder / 'srun').write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" > "{note}"\n'
        f'printf %s "$MASTER_PORT" > "{tmp_path}/port"\n'
        f'printf %s "$MMSAM_COMMAND" > "{tmp_path}/command"'
    )
    # a torch that has nothing but torchrun
    (folder / 'python').write_text(
        f'#!/bin/bash\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"'
    )
    (folder / 'sbatch').write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" > "{note}"\ncat > "{tmp_path}/script"\necho "42;c"'
    )
    # partition cpu has no GPUs, none is unknown
    (folder / 'sinfo').write_text(
        '#!/bin/bash\n'
        'case "$*" in *=none*) ;; *partition=cpu*) echo "(null)" ;;\n'
        '*=%G) printf "(null)\\ngpu:a100:8(S:0-1)\\n" ;; *) printf "p\\ncpu\\n" ;; esac\n'
    )
    for name in ('python', 'srun', 'sbatch', 'sinfo'):
        (folder / name).chmod(0o755)
    errors = folder / 'torch' / 'distributed' / 'elastic' / 'multiprocessing' / 'errors.py'
    errors.parent.mkdir(parents=True)
    errors.write_text('class ChildFailedError(Exception):\n    pass\n')
    errors.with_name('api.py').write_text(
        'class SignalException(Exception):\n    pass\n\n'
        'class PContext:\n    def close(self, death_sig=None, timeout=30):\n        pass\n'
    )
    for package in errors.relative_to(folder).parents[:-1]:
        (folder / package / '__init__.py').touch()
    (folder / 'torch' / 'distributed' / 'run.py').write_text(TORCHRUN.format(arguments=str(note)))
    return folder


def launch(stand_in: Path, tool: str, *args: object, **variables: str) -> list[str]:
    """The arguments that the launcher behind ``tool`` got."""
    done = script(stand_in, tool, *args, **variables)
    assert done.returncode == 0, done.stderr
    return (stand_in.parent / 'arguments').read_text().splitlines()


def script(stand_in: Path, tool: str, *args: object, **variables: str):
    variables.setdefault('PORT', str(free_port()))
    variables = {name: value for name, value in variables.items() if value != 'unset'}
    env = {
        name: value
        for name, value in environment(PYTHON=str(stand_in / 'python')).items()
        if name not in ('PORT', 'MASTER_PORT', 'MASTER_ADDR', 'GPUS')
    }
    env['PATH'] = f'{stand_in}:{env["PATH"]}'
    return subprocess.run(
        [ROOT / 'tools' / tool, *map(str, args)],
        env={**env, **variables},
        cwd=stand_in.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


SIGNALS = '--signals-to-handle=SIGTERM,SIGINT,SIGUSR1'
ODD = ['--work-dir', 'it\'s a "dir"', '--options', 'a.b="[1, 2]"', 'c=$HOME *', 'd=-e \\', '']


def test_dist_train(stand_in):
    port = str(free_port())
    arguments = launch(stand_in, 'dist_train.sh', 'my config.py', 4, *ODD, PORT=port)
    assert arguments == [
        f'--master_port={port}', SIGNALS, '--nnodes=1', '--node_rank=0', '--nproc_per_node=4',
        '--master_addr=127.0.0.1',
        str(ROOT / 'tools' / 'train.py'), 'my config.py', *ODD, '--launcher', 'pytorch',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('tool', 'args', 'variables'),
    [('dist_train.sh', ['my config.py', '4'], []),
     ('slurm_train.sh', ['p', 'j', 'my config.py', 'work dir'], ['GPUS=2'])],
)  # fmt: skip
def test_what_the_user_typed_goes_with_it(stand_in, tool, args, variables):
    launch(stand_in, tool, *args, *ODD, **dict(pair.split('=') for pair in variables))
    command = (stand_in.parent / 'command').read_text()
    assert shlex.split(command) == [*variables, str(ROOT / 'tools' / tool), *args, *ODD]


def test_dist_test(stand_in):
    arguments = launch(stand_in, 'dist_test.sh', 'c.py', 'w 1.pth', 2, '--out', 'x.json')
    tool = str(ROOT / 'tools' / 'test.py')
    assert '--nproc_per_node=2' in arguments
    assert arguments[arguments.index(tool) :] == [
        tool, 'c.py', 'w 1.pth', '--out', 'x.json', '--launcher', 'pytorch',
    ]  # fmt: skip


def test_dist_cache(stand_in):
    arguments = launch(stand_in, 'dist_cache.sh', 'c.py', 2, '--phases', 'test')
    tool = str(ROOT / 'tools' / 'cache_embeddings.py')
    assert '--nproc_per_node=2' in arguments
    assert arguments[arguments.index(tool) :] == [
        tool, 'c.py', '--phases', 'test', '--launcher', 'pytorch',
    ]  # fmt: skip


def test_several_machines(stand_in):
    arguments = launch(
        stand_in, 'dist_train.sh', 'c.py', 8, NNODES='2', NODE_RANK='1', MASTER_ADDR='host0'
    )
    assert {'--nnodes=2', '--node_rank=1', '--master_addr=host0'} <= set(arguments)


def test_master_port_is_the_other_name(stand_in):
    port = str(free_port())
    assert f'--master_port={port}' in launch(
        stand_in, 'dist_train.sh', 'c.py', 1, PORT='unset', MASTER_PORT=port
    )
    assert f'--master_port={port}' in launch(
        stand_in, 'dist_train.sh', 'c.py', 1, PORT=port, MASTER_PORT=str(free_port())
    )


def test_slurm_leaves_the_port_to_the_processes(stand_in):
    """Which find one that no other job has; see mmsam.engine.slurm."""
    launch(stand_in, 'slurm_train.sh', 'p', 'j', 'c.py', PORT='unset')
    assert (stand_in.parent / 'port').read_text() == ''


@contextlib.contextmanager
def taken(port: int):
    """Somebody listens on the port meanwhile: this test, or who has it already."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            other.bind(('', port))
            other.listen()
        yield


@pytest.fixture
def _nobody_beside():
    with usual_port():
        yield


@contextlib.contextmanager
def free(port: int):
    """Skips the test where somebody else has the port."""
    with socket.socket() as other:
        try:
            other.bind(('', port))
        except OSError:
            pytest.skip(f'port {port} is taken on this machine')
    yield


@pytest.mark.usefixtures('_nobody_beside')
def test_without_a_port(stand_in):
    with free(29500):
        done = script(stand_in, 'dist_train.sh', 'c.py', 2, PORT='unset')
    assert (done.returncode, done.stderr) == (0, '')
    assert '--master_port=29500' in (stand_in.parent / 'arguments').read_text().splitlines()


def test_without_a_port_where_the_usual_one_is_taken(stand_in):
    with taken(29500):
        done = script(stand_in, 'dist_train.sh', 'c.py', 2, PORT='unset')
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    start, _, port = line.rpartition(' ')
    assert start == 'PORT not given and 29500 is taken: using'
    assert 1024 <= int(port) <= 65535 and port != '29500'
    assert f'--master_port={port}' in (stand_in.parent / 'arguments').read_text().splitlines()


def test_several_machines_agree_on_the_usual_port(stand_in):
    with taken(29500):
        done = script(stand_in, 'dist_train.sh', 'c.py', 1, PORT='unset', NNODES='2')
        assert done.returncode == 5 and 'port 29500 is taken' in done.stderr
        other_node = dict(PORT='unset', NNODES='2', NODE_RANK='1')  # it does not listen
        assert '--master_port=29500' in launch(stand_in, 'dist_train.sh', 'c.py', 1, **other_node)


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux lets a socket hold a port')
@pytest.mark.usefixtures('_nobody_beside')
@pytest.mark.parametrize('given', [True, False])
def test_the_port_is_held_until_torchrun_listens(stand_in, given):
    """As torchrun's imports take seconds; here it is asked what others can do meanwhile."""
    port = free_port() if given else 29500
    variables = dict(PORT=str(port) if given else 'unset')
    if not given:
        with free(port):
            pass
    (stand_in / 'torch' / 'distributed' / 'run.py').write_text(
        """
import socket

def bind(reuse):
    with socket.socket() as other_job:
        other_job.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        try:
            other_job.bind(('', PORT))
        except OSError:
            print('held')
        else:
            print('free')

bind(False)
bind(True)

def parse_args(arguments):
    bind(False)

def run(args):
    with socket.create_server(('', PORT)):  # sets SO_REUSEADDR, as torch does
        print('listening')
""".replace('PORT', str(port))
    )
    done = script(stand_in, 'dist_train.sh', 'c.py', 2, **variables)
    assert done.stdout == 'held\nheld\nheld\nlistening\n', done.stderr


def test_a_port_that_is_taken_at_the_last_moment(stand_in):
    """In the moment between the holder and torchrun; the words are torch's."""
    run = stand_in / 'torch' / 'distributed' / 'run.py'
    run.write_text("""
def parse_args(arguments):
    pass

def run(args):
    raise RuntimeError('... code: -98, name: EADDRINUSE, message: address already in use')
""")
    done = script(stand_in, 'dist_train.sh', 'c.py', 2, PORT='4711')
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert line.startswith('LaunchError: port 4711 is taken')
    run.write_text(run.read_text().replace('EADDRINUSE', 'EIO'))
    done = script(stand_in, 'dist_train.sh', 'c.py', 2, PORT='4711')
    assert done.returncode == 1 and 'EIO' in done.stderr.splitlines()[-1]


def test_the_port_of_a_job_that_has_just_ended(stand_in):
    with socket.create_server(('', 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(('127.0.0.1', port)) as client:
            listener.accept()[0].close()  # who closes first waits: TIME_WAIT
            client.recv(1)
    launch(stand_in, 'dist_train.sh', 'c.py', 2, PORT=str(port))


@pytest.mark.parametrize('address', ['', '127.0.0.1'])
@pytest.mark.bad_input(77)
def test_a_taken_port(stand_in, address):
    with socket.socket() as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        done = script(stand_in, 'dist_train.sh', 'c.py', 2, PORT=str(port))
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'LaunchError: port {port} is taken') and f'PORT={port + 1}.' in line
    assert not (stand_in.parent / 'arguments').exists()


@pytest.mark.parametrize('port', ['abc', '0', '70000', '-1', ''])
def test_what_is_no_port(stand_in, port):
    done = script(stand_in, 'dist_train.sh', 'c.py', 2, PORT=port, MASTER_PORT='x')
    assert done.returncode == 5, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith('LaunchError: ') and f"'{port or 'x'}'" in line


@pytest.mark.parametrize('gpus', ['x', '0', '-1', '', '1.5'])
@pytest.mark.bad_input(75)
def test_what_is_no_number_of_gpus(stand_in, gpus):
    done = script(stand_in, 'dist_train.sh', 'c.py', gpus)
    assert done.returncode == 5
    assert done.stderr.startswith('LaunchError: ') and f"'{gpus}'" in done.stderr


@pytest.mark.parametrize(
    ('tool', 'args'),
    [('dist_train.sh', ['c.py']), ('dist_test.sh', ['c.py', 'w.pth']), ('dist_cache.sh', ['c.py']),
     ('slurm_train.sh', ['p', 'j']), ('slurm_test.sh', ['p', 'j', 'c.py'])],
)  # fmt: skip
def test_too_few_arguments(stand_in, tool, args):
    done = script(stand_in, tool, *args)
    assert done.returncode == 2
    assert done.stderr.startswith('usage: ') and tool in done.stderr


# ----------------------------------------------------------------------------------------- Slurm


def test_slurm_defaults(stand_in):
    arguments = launch(stand_in, 'slurm_train.sh', 'part', 'my job', 'c.py', PORT='4711')
    assert arguments == [
        '--partition=part', '--job-name=my job', '--ntasks=8', '--ntasks-per-node=8',
        '--cpus-per-task=5', '--gres=gpu:8', '--kill-on-bad-exit=1',
        str(stand_in / 'python'), '-u', str(ROOT / 'tools' / 'train.py'), 'c.py',
        '--launcher', 'slurm',
    ]  # fmt: skip
    assert (stand_in.parent / 'port').read_text() == '4711'


def test_slurm_with_everything(stand_in):
    arguments = launch(
        stand_in, 'slurm_train.sh', 'p', 'j', 'c.py', 'work dir', *ODD[2:],
        GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='3', SRUN_ARGS='--time=1:00 --exclusive',
    )  # fmt: skip
    assert arguments == [
        '--partition=p', '--job-name=j', '--ntasks=16', '--ntasks-per-node=4',
        '--cpus-per-task=3', '--gres=gpu:4', '--kill-on-bad-exit=1', '--time=1:00', '--exclusive',
        str(stand_in / 'python'), '-u', str(ROOT / 'tools' / 'train.py'), 'c.py',
        '--work-dir', 'work dir', *ODD[2:], '--launcher', 'slurm',
    ]  # fmt: skip


def test_slurm_without_a_work_dir_takes_arguments(stand_in):
    arguments = launch(stand_in, 'slurm_train.sh', 'p', 'j', 'c.py', '--no-validate')
    assert arguments[-4:] == ['c.py', '--no-validate', '--launcher', 'slurm']


def test_slurm_asks_for_no_more_gpus_a_node_than_in_all(stand_in):
    arguments = launch(stand_in, 'slurm_train.sh', 'p', 'j', 'c.py', GPUS='2')
    assert {'--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2'} <= set(arguments)


def test_slurm_test(stand_in):
    arguments = launch(stand_in, 'slurm_test.sh', 'p', 'j', 'c.py', 'w 1.pth', '--out', 'x.json')
    tool = str(ROOT / 'tools' / 'test.py')
    assert arguments[arguments.index(tool) :] == [
        tool, 'c.py', 'w 1.pth', '--out', 'x.json', '--launcher', 'slurm',
    ]  # fmt: skip


def test_slurm_on_a_partition_without_gpus(stand_in):
    done = script(stand_in, 'slurm_train.sh', 'cpu', 'j', 'c.py', GPUS='16', GPUS_PER_NODE='4')
    assert done.stderr == (
        'Asking partition cpu for 16 CPU processes (the partition has no GPUs), 4 on each of 4 '
        'node(s), with 5 CPU(s) each.\n'
    )
    assert '--gres' not in (stand_in.parent / 'arguments').read_text()


def test_a_batch_job_of_slurm(stand_in):
    done = script(
        stand_in, 'slurm_train.sh', 'p', 'my job', 'configs/my config.py', *ODD[2:],
        BATCH='1', GPUS='2', SRUN_ARGS='--time=1:00', CPUS_PER_TASK='3',
    )  # fmt: skip
    assert done.stdout == 'Job 42. Log: work_dirs/my config/slurm-42.out. Cancel: scancel 42\n'
    assert (stand_in.parent / 'work_dirs' / 'my config').is_dir()
    assert (stand_in.parent / 'arguments').read_text().splitlines() == [
        '--parsable', '--partition=p', '--job-name=my job', '--ntasks=2', '--ntasks-per-node=2',
        '--cpus-per-task=3', '--gres=gpu:2', '--requeue', '--signal=USR1@120',
        '--open-mode=append', '--output=work_dirs/my config/slurm-%j.out', '--time=1:00',
    ]  # fmt: skip
    # the script that Slurm starts later, here on the stand-in for srun
    run = subprocess.run(
        ['bash', str(stand_in.parent / 'script')], capture_output=True, text=True,
        env={'PATH': f'{stand_in}:/usr/bin:/bin'}, cwd=stand_in.parent,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, '')
    assert (stand_in.parent / 'arguments').read_text() == '\n'.join(
        [
            '--cpus-per-task=3', '--kill-on-bad-exit=1',
            str(stand_in / 'python'), '-u', str(ROOT / 'tools' / 'train.py'),
            'configs/my config.py', *ODD[2:], '--launcher', 'slurm', '',
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ('code', 'squeue', 'requeued'),
    [
        (75, 'echo RUNNING', True),
        (75, 'echo SIGNALING', True),
        (75, 'exit 1', True),
        (143, 'echo RUNNING', True),
        (138, 'echo RUNNING', False),
        (75, 'echo COMPLETING', False),
        (143, 'echo COMPLETING', False),
        (3, 'echo RUNNING', False),
    ],
)
def test_which_batch_jobs_go_back_to_the_queue(stand_in, code, squeue, requeued):
    script(stand_in, 'slurm_train.sh', 'p', 'j', 'c.py', BATCH='1')
    for name, text in (
        ('srun', f'exit {code}'),
        ('squeue', squeue),
        ('scontrol', 'echo scontrol $*'),
    ):
        (stand_in / name).write_text(f'#!/bin/bash\n{text}\n')
        (stand_in / name).chmod(0o755)
    run = subprocess.run(
        ['bash', str(stand_in.parent / 'script')], capture_output=True, text=True,
        env={'PATH': f'{stand_in}:/usr/bin:/bin', 'SLURM_JOB_ID': '42'},
    )  # fmt: skip
    assert run.returncode == code
    assert ('scontrol requeue 42' in run.stdout) == requeued


@pytest.mark.parametrize(('port', 'seen'), [('x', 'x'), ('', 'y'), ('0', '0'), ('70000', '70000')])
def test_what_is_no_port_for_slurm(stand_in, port, seen):
    done = script(stand_in, 'slurm_train.sh', 'p', 'j', 'c.py', PORT=port, MASTER_PORT='y')
    assert done.returncode == 5
    assert done.stderr == (f"LaunchError: PORT: expected a number from 1 to 65535, got '{seen}'.\n")


@pytest.mark.bad_input(76)
def test_an_unknown_partition(stand_in):
    done = script(stand_in, 'slurm_train.sh', 'none', 'j', 'c.py')
    assert done.returncode == 5
    assert done.stderr == "LaunchError: partition 'none' is unknown; there are: p cpu.\n"


def test_no_slurm(stand_in):
    (stand_in / 'sinfo').write_text('#!/bin/bash\necho "no controller" >&2\nexit 1\n')
    done = script(stand_in, 'slurm_train.sh', 'p', 'j', 'c.py')
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith('LaunchError: sinfo, which knows')


@pytest.mark.parametrize(
    'variables',
    [dict(GPUS='x'), dict(GPUS='0'), dict(GPUS_PER_NODE='0'), dict(CPUS_PER_TASK='many'),
     dict(GPUS='12', GPUS_PER_NODE='8')],
)  # fmt: skip
@pytest.mark.bad_input(75)
def test_slurm_refuses_numbers_that_do_not_fit(stand_in, variables):
    done = script(stand_in, 'slurm_train.sh', 'p', 'j', 'c.py', **variables)
    assert done.returncode == 5 and done.stderr.startswith('LaunchError: ')


# ------------------------------------------------------------------------------ two processes

DIGEST_HOOK = '''
import hashlib
from pathlib import Path

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook

from mmsam.registry import HOOKS


@HOOKS.register_module()
class DigestHook(Hook):
    """Leaves a digest of each rank's parameters and buffers in the work dir."""

    def after_train(self, runner):
        digest = hashlib.sha256()
        for name, value in sorted(runner.model.module.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        path = Path(runner.work_dir) / f'rank_{get_rank()}_of_{get_world_size()}'
        path.write_text(digest.hexdigest())
'''

DIGEST = """
custom_imports = dict(imports=['digest_hook'])
custom_hooks = [*_base_.custom_hooks, dict(type='DigestHook')]
"""

# plain descent: Adam's first steps turn differences of 1e-8 into some of the learning rate
TWO_STEPS = [
    'train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2', 'param_scheduler=[]',
    'optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.lr=0.01',
]  # fmt: skip


@pytest.fixture(scope='module')
def two_jobs(data, tmp_path_factory):
    """Work dirs of two jobs of two processes each: forked from this one, and through the script."""
    folder = tmp_path_factory.mktemp('two jobs')
    (folder / 'digest_hook.py').write_text(DIGEST_HOOK)
    config = write_config(folder, data, max_iters=2, extra=DIGEST)
    options = ['--options', 'train_dataloader.batch_size=1', *TWO_STEPS]
    launched = start(
        'dist_train.sh', config, 2, '--work-dir', "it's job two", '--seed', '7', *options,
        cwd=folder, PORT=str(free_port()),
        PYTHONPATH=f'{ROOT}:{folder}', CUDA_VISIBLE_DEVICES='',
    )  # fmt: skip
    forked = Ranks(
        [str(config), '--work-dir', str(folder / 'one'), '--no-validate', *options],
        folder / 'output', prepare=lambda rank: sys.path.insert(0, str(folder)),
    )  # fmt: skip
    assert forked.finish() == [0, 0], forked.output.read_text()[-3000:]
    done = finish(launched)
    assert done.returncode == 0, done.stderr[-3000:]
    return [folder / 'one', folder / "it's job two"]


def test_both_ranks_end_with_equal_parameters(two_jobs):
    digests = []
    for work_dir in two_jobs:
        first, second = ((work_dir / f'rank_{rank}_of_2').read_text() for rank in (0, 1))
        assert first == second
        digests.append(first)
    assert digests[0] != digests[1], 'the seeds differ'


def test_only_the_first_rank_writes(two_jobs):
    work_dir = two_jobs[1]
    (log,) = work_dir.glob('*/*.log')
    assert log.read_text().count('Saving checkpoint at 2 iterations') == 1
    assert (work_dir / 'results.json').is_file()


def test_two_ranks_equal_one_with_the_same_global_batch(two_jobs, data, tmp_path):
    distributed = two_jobs[0]
    config = write_config(tmp_path, data, max_iters=2)
    run_here(
        train, config, '--no-validate', '--work-dir', tmp_path / 'one', '--options', *TWO_STEPS
    )
    before = weights_of_start(config, tmp_path)
    one, two = weights_of(tmp_path / 'one' / 'iter_2.pth'), weights_of(distributed / 'iter_2.pth')
    assert one.keys() == two.keys() and not equal(one, before)
    moved = max((one[key] - before[key]).abs().max() for key in one)
    for key, value in one.items():
        assert (value - two[key]).abs().max() < 1e-3 * moved, key


def weights_of_start(config: Path, folder: Path) -> dict[str, torch.Tensor]:
    """The weights a run of ``config`` starts with."""
    run_here(
        train, config, '--no-validate', '--work-dir', folder / 'start', '--options',
        'train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1', 'param_scheduler=[]',
        'optim_wrapper.optimizer.lr=0.0',
    )  # fmt: skip
    return weights_of(folder / 'start' / 'iter_1.pth')
