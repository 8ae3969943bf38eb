"""Train on several GPUs of this machine, or on machines of a Slurm cluster through submitit.

    python tools/launch.py CONFIG --num-gpus 8 [arguments of train.py]
    python tools/launch.py CONFIG --num-gpus 8 --num-nodes 2 --use-cluster --partition P

A job of the cluster that is pre-empted or reaches its time limit saves, is queued again and goes
on until the training is done. Each start keeps config.py, the file as it was given, and
config_resolved.py, from which its processes run, in WORK_DIR/launches.
"""

import argparse
import os
import secrets
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import Config

from mmsam.apis import add_training_arguments, load_training_config, run_tool
from mmsam.atomic_file import write_text_atomically
from mmsam.errors import LaunchError

TOOLS = Path(__file__).resolve().parent

SECONDS_OF_NOTICE = 300
"""Before the time limit; a quarter of a short one. A quarter of the notice is left to Slurm."""

MAX_TIMEOUTS = 1000
"""How often a job that reaches its time limit is queued again."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_arguments(parser)
    launch = parser.add_argument_group('launch')
    launch.add_argument(
        '--num-gpus',
        type=int,
        default=1,
        metavar='N',
        help='processes on each machine, one for each GPU (or CPU processes, here, without GPUs)',
    )
    launch.add_argument('--num-nodes', type=int, default=1, metavar='M', help='machines')
    launch.add_argument(
        '--use-cluster',
        type=int,
        nargs='?',
        choices=(0, 1),
        const=1,
        default=0,
        help='submit a job to Slurm (1, or no number) instead of training here (0)',
    )
    launch.add_argument('--partition', help="of the cluster; else Slurm's default")
    launch.add_argument('--account', help='to which the job is charged')
    launch.add_argument('--qos', help='quality of service')
    launch.add_argument(
        '--timeout-hours',
        type=float,
        metavar='T',
        help='time limit, after which the job is queued again and goes on (default 24)',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    check_launch(args)
    args.launcher = 'slurm' if args.use_cluster else 'pytorch'
    config = load_training_config(args)
    config.setdefault('experiment_name', Path(args.config).stem)
    if args.use_cluster:
        submit(args, config)
    else:
        train_here(args, config)


def check_launch(args: argparse.Namespace) -> None:
    """Check the launcher's own arguments.

    Raises:
        LaunchError: numbers out of range, or an argument that needs another one.
    """
    for name in ('num_gpus', 'num_nodes'):
        if getattr(args, name) < 1:
            raise LaunchError(
                f'--{name.replace("_", "-")}: expected a number of at least 1, '
                f'got {getattr(args, name)}.'
            )
    if args.launcher != 'none':
        raise LaunchError(f'launch.py chooses the launcher itself, got --launcher {args.launcher}.')
    if args.use_cluster:
        if args.timeout_hours is None:
            args.timeout_hours = 24.0
        if not 1 / 12 <= args.timeout_hours <= 24 * 365:
            raise LaunchError(
                '--timeout-hours: expected at least 5 minutes (0.084), as a start has to load, '
                'to validate and to train before it saves, and at most a year (8760), '
                f'got {args.timeout_hours}.'
            )
        return
    for name in ('partition', 'account', 'qos', 'timeout_hours'):
        if getattr(args, name) is not None:
            raise LaunchError(f'--{name.replace("_", "-")} is for jobs: add --use-cluster.')
    if args.num_nodes > 1:
        raise LaunchError(
            f'--num-nodes {args.num_nodes}: several machines need --use-cluster, or '
            'tools/dist_train.sh on each of them.'
        )
    gpus = torch.cuda.device_count()
    if 0 < gpus < args.num_gpus:
        raise LaunchError(
            f'--num-gpus: expected at most {gpus} on this machine, got {args.num_gpus}.'
        )


def save_configs(args: argparse.Namespace, config: Config) -> Path:
    """Write ``config.py`` (or .yaml, .json) and ``config_resolved.py`` to a folder of this start.

    A later start in the same work dir must not change what a requeued or a waiting job reads. The
    run itself writes ``config_resolved.py`` to the work dir once it has that for itself.

    Returns:
        Path of the latter.

    Raises:
        StorageError: they cannot be written.
    """
    given = Path(args.config)
    start = f'{time.strftime("%Y%m%d_%H%M%S")}_{secrets.token_hex(2)}'
    folder = Path(config.work_dir) / 'launches' / start
    text = given.read_text(encoding='utf-8')
    if given.suffix != '.json':
        text = f'# {given.resolve()}, launched by\n# {own_command()}\n\n{text}'
    write_text_atomically(folder / f'config{given.suffix}', text)
    resolved = folder / 'config_resolved.py'
    write_text_atomically(resolved, config.pretty_text)
    return resolved


def own_command() -> str:
    """As it was typed; report.html shows what ``MMSAM_COMMAND`` holds."""
    return shlex.join(['python', *sys.argv])


def training_command(args: argparse.Namespace, resolved: Path) -> list[str]:
    """The script and its arguments for one process: all others stand in the config."""
    command = [str(TOOLS / 'train.py'), str(resolved.resolve()), '--launcher', args.launcher]
    flags = {'--debug': args.debug, '--auto-resume': args.auto_resume}
    return command + [flag for flag, is_set in flags.items() if is_set]


def train_here(args: argparse.Namespace, config: Config) -> NoReturn:
    """Become the launcher of torchrun, on any free port."""
    resolved = save_configs(args, config)
    print(f'{args.num_gpus} processes on this machine, config {resolved}', flush=True)
    launcher = [sys.executable, str(TOOLS / 'launch_torchrun.py'), '0', 'preferred']
    processes = ['--nnodes=1', f'--nproc_per_node={args.num_gpus}', '--master_addr=127.0.0.1']
    command = [*launcher, *processes, *training_command(args, resolved)]
    os.execve(sys.executable, command, {**os.environ, 'MMSAM_COMMAND': own_command()})


def submit(args: argparse.Namespace, config: Config) -> None:
    """Submit the job and say how to follow it.

    Raises:
        LaunchError: no submitit, no Slurm, or Slurm refuses.
    """
    try:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        from mmsam.cluster_job import STOP_SIGNAL, TrainingJob
    except ImportError as error:
        raise LaunchError(
            f'--use-cluster needs submitit, which is missing ({error}): pip install mmsam[slurm], '
            'or pip install submitit.'
        ) from error
    folder = Path(config.work_dir)
    try:
        executor = SlurmExecutor(
            folder / 'submitit_logs',
            max_num_timeout=MAX_TIMEOUTS,
            python=shlex.join([sys.executable, '-u', str(TOOLS / 'submitit_task.py')]),
        )
    except RuntimeError as error:
        raise LaunchError(f'--use-cluster: expected the commands of Slurm here: {error}') from error
    minutes = round(args.timeout_hours * 60)
    notice = min(SECONDS_OF_NOTICE, minutes * 60 // 4)
    executor.update_parameters(
        **job_parameters(args, config, minutes),
        setup=[
            f'export SUBMITIT_PREEMPT_SIGNAL={STOP_SIGNAL}',
            f'export MMSAM_COMMAND={shlex.quote(own_command())}',
        ],
        additional_parameters=dict(signal=f'{STOP_SIGNAL}@{notice}', requeue=True),
    )
    resolved = save_configs(args, config)
    command = [sys.executable, '-u', *training_command(args, resolved)]
    try:
        job = executor.submit(TrainingJob(command, folder.resolve(), notice * 3 // 4))
    except FailedJobError as error:
        raise LaunchError(f'Slurm refuses the job: {" ".join(str(error).split())}') from error
    print(
        f'Job {job.job_id}: {args.num_nodes} x {args.num_gpus} GPUs, config {resolved}\n'
        f'log     {job.paths.stdout} and .err; of rank K: {job.job_id}_K_log\n'
        f'follow  tail -F {shlex.quote(str(job.paths.stdout))}\n'
        f'state   squeue -j {job.job_id}\n'
        f'cancel  scancel {job.job_id}'
    )


def job_parameters(args: argparse.Namespace, config: Config, minutes: int) -> dict[str, Any]:
    """What is asked of Slurm: a task for each GPU, with a core for it and each of its loaders."""
    loaders = [config.train_dataloader, config.get('val_dataloader') or {}]
    cores = 1 + max(loader.get('num_workers', 0) for loader in loaders)
    wanted = dict(partition=args.partition, account=args.account, qos=args.qos)
    return dict(
        job_name=config.experiment_name,
        nodes=args.num_nodes,
        ntasks_per_node=args.num_gpus,
        gpus_per_node=args.num_gpus,
        cpus_per_task=cores,
        time=minutes,
        # srun does not ask for the job's cores by itself; one task that ends ends the others
        srun_args=[f'--cpus-per-task={cores}', '--kill-on-bad-exit=1'],
        **{name: value for name, value in wanted.items() if value is not None},
    )


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
