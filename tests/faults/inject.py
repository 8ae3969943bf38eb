"""Injects faults into real training runs, resumes them, and prints what each fault cost.

    PYTHONPATH=tests:. python tests/faults/inject.py [--short] [--only FAULT ...] [--times N]

All runs have two ranks (gloo) and go through ``tools/train.py``. One run is never interrupted; the
digest of its weights and optimizer is written down after every iteration. A series of runs is
interrupted by one fault after the other and resumed each time: it must go on at the last checkpoint
that was complete, and every digest must be that of the run which was never interrupted. A series
that reaches its end begins again.

Ranks are forked from this process, which has imported everything, so that a fault costs a second
instead of ten; faults 'of a launched ...' go through ``tools/dist_train.sh``.

The exit code is 1 when a fault cost what it must not.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from fault_hooks import PROGRESS
from forked_ranks import PATIENCE, Ranks
from ports import free_port
from prettytable import PrettyTable
from processes import children, is_alive, wait_until
from tiny_run import ROOT, TRAIN_COUNTS, environment, run_here, write_config, write_dataset

from mmsam.datasets.transforms import LoadSAMImage
from mmsam.training_checkpoint import read_training_checkpoint, training_checkpoints
from tools import train

INTERVAL = 2
"""Iterations between two checkpoints."""

STALL_SECONDS = 4
"""Time limit of runs in which a rank stops."""

CLONE_NEWNET = 0x40000000
"""Of Linux's ``setns`` and ``unshare``."""

EXTRA = """
custom_imports = dict(imports=['fault_hooks'])
model['image_encoder'].update(out_chans=64)
model['prompt_encoder'].update(embed_dim=64)
model['mask_decoder'].update(
    transformer_dim=64, transformer_mlp_dim=64, iou_head_hidden_dim=64)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={interval}))
custom_hooks = [
    dict(type='DivergenceHook', max_skipped=10),
    dict(type='MaskLossHook', loss=dict(type='SAMMaskLoss', resolution='low_res')),
    dict(type='DigestHook'),
    dict(type='NaNBatches', iterations={nan}),
]
"""


class FaultError(Exception):
    """A fault cost what it must not, or did not show itself as it must."""


def check(condition: object, what: str) -> None:
    if not condition:
        raise FaultError(what)


# ------------------------------------------------------------------------------------- the runs


class Launched:
    """Two ranks of tools/dist_train.sh; the same methods as ``Ranks``."""

    def __init__(self, args: list[str], output: Path, **variables: str) -> None:
        self.output = output
        paths = [str(ROOT), str(ROOT / 'tests'), str(Path(__file__).parent)]
        variables = dict(
            PYTHONPATH=os.pathsep.join(paths), CUDA_VISIBLE_DEVICES='', PORT=str(free_port()),
        ) | variables  # fmt: skip
        env = environment(**variables)
        with output.open('w') as file:
            self.launcher = subprocess.Popen(
                [ROOT / 'tools' / 'dist_train.sh', args[0], '2', *args[1:]],
                env=env, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    @property
    def ranks(self) -> list[int]:
        return sorted(children(self.launcher.pid))

    def poll(self) -> bool:
        return self.launcher.poll() is not None

    def finish(self, kill_the_rest: bool = False) -> list[int]:
        """Exit code of the launcher."""
        left = self.ranks
        if kill_the_rest:
            self.launcher.kill()
        try:
            return [self.launcher.wait(PATIENCE)]
        finally:
            self.launcher.kill()
            for process in left:
                if is_alive(process):
                    os.kill(process, signal.SIGKILL)


Run = Ranks | Launched


class Series:
    """Runs in one work dir, each the resumed one of the one before.

    Args:
        folder: gets the data, the work dir and the never interrupted run.
        iterations: of the whole training.
        nan: iterations whose batch is NaN.
        data: of another series; None writes them.
    """

    def __init__(
        self, folder: Path, iterations: int, nan: list[int] | None = None, data: Path | None = None
    ) -> None:
        self.folder = folder
        self.iterations = iterations
        folder.mkdir(parents=True)
        self.data = data or write_dataset(folder / 'data')
        self.config = write_config(
            folder, self.data, max_iters=iterations,
            extra=EXTRA.format(interval=INTERVAL, nan=nan or []),
        )  # fmt: skip
        self.work_dir = folder / 'run'
        self.output = folder / 'output'
        self.expected: dict[int, str] = {}
        self._seen = 0
        self._started: Run | None = None
        self._running: Run | None = None

    def warm_up(self) -> None:
        """Train in this process once, which imports everything that the ranks will need.

        mmengine would collect garbage among all of that in each start.
        """
        with self.output.open('w') as file, contextlib.redirect_stdout(file):
            with contextlib.redirect_stderr(file):
                run_here(
                    train, self.config, '--work-dir', self.folder / 'warm', '--no-validate',
                    '--options', 'train_cfg.max_iters=1',
                )  # fmt: skip
        gc.freeze()

    def run_without_a_fault(self) -> None:
        """The run that all others are compared with."""
        straight = self.folder / 'straight'
        run = Ranks(self._args(straight), self.output)
        codes = run.finish()
        check(codes == [0, 0], f'the never interrupted run ended with {codes}: {self.words()}')
        self.expected = dict(lines(straight))
        check(len(self.expected) == self.iterations, 'the never interrupted run is incomplete')

    def _args(self, work_dir: Path) -> list[str]:
        resume = ['--resume'] if training_checkpoints(work_dir) else []
        return [
            str(self.config), '--work-dir', str(work_dir), '--no-validate', *resume,
            '--options', 'train_dataloader.batch_size=1',
        ]  # fmt: skip

    def start(self, how: type[Ranks] | type[Launched], **options: object) -> Run:
        """Resume the series, or begin it; without options a run that still goes on is as good."""
        run, self._running = self._running, None
        if run is not None:
            if isinstance(run, how) and not options and not self.has_ended(run):
                return run
            run.finish(kill_the_rest=True)
        self._seen = len(lines(self.work_dir))
        self._started = how(self._args(self.work_dir), self.output, **options)
        return self._started

    def new_lines(self) -> list[tuple[int, str]]:
        """Iterations that the latest run has finished, with their digests."""
        return lines(self.work_dir)[self._seen :]

    def wait_for(self, run: Run, iterations: int) -> None:
        """Wait until the latest run has finished so many, at least."""
        here = wait_until(lambda: len(self.new_lines()) >= iterations or run.poll(), PATIENCE)
        done = self.new_lines()
        check(here and len(done) >= iterations, f'it made {len(done)} iterations: {self.words()}')

    def has_ended(self, run: Run) -> bool:
        """Whether a run has come to the end of the training, as a fast machine may."""
        if not run.poll():
            return False
        codes = set(run.finish())
        check(codes == {0}, f'it ended with {codes}: {self.words()}')
        return True

    def latest(self) -> int:
        """Iteration of the checkpoint from which the series would go on; 0 without one."""
        found = training_checkpoints(self.work_dir)
        return int(re.sub(r'\D', '', found[0].name)) if found else 0

    def complete(self) -> int:
        """Iteration of the latest checkpoint that must be complete, by the lines of the run."""
        done = self.new_lines()
        before = self.latest() if not done else done[-1][0] - 1
        return before // INTERVAL * INTERVAL

    def words(self) -> str:
        return self.output.read_text()[-1500:]

    def check_digests(self) -> None:
        wrong = [number for number, digest in self.new_lines() if self.expected[number] != digest]
        check(not wrong, f'iterations {wrong[:5]} differ from the never interrupted run')

    def resume_and_compare(self, at_least: int, how: type[Ranks] | type[Launched] = Ranks) -> int:
        """Resume; iterations lost before ``at_least``, which should be 0.

        The resumed run goes on, and the next fault may meet it.
        """
        self.check_digests()
        before = self.latest()
        run = self.start(how)
        self.wait_for(run, 1)
        self._running = run
        self.check_digests()
        check(before == 0 or 'resumed ' in self.output.read_text(), 'it did not resume')
        return max(0, at_least - (self.new_lines()[0][0] - 1))

    def stop(self) -> None:
        """End the run that goes on, if there is one."""
        if self._running is not None:
            self._running.finish(kill_the_rest=True)
            self._running = None
            self.check_digests()

    def clear(self) -> None:
        """Begin the series again; what a fault has left running ends."""
        if self._started is not None:
            self._started.finish(kill_the_rest=True)
        self._started = self._running = None
        shutil.rmtree(self.work_dir, ignore_errors=True)
        self._seen = 0

    close = clear

    def need(self, iterations: int) -> None:
        """Begin again if fewer iterations than these are left."""
        if self.latest() > self.iterations - iterations:
            self.stop()
            self.clear()


def lines(work_dir: Path) -> list[tuple[int, str]]:
    """What ``DigestHook`` wrote; a last line that is cut off does not count."""
    try:
        text = (work_dir / PROGRESS).read_text()
    except FileNotFoundError:
        return []
    found = (line.split() for line in text.splitlines(keepends=True) if line.endswith('\n'))
    return [(int(number), digest) for number, digest in found]


# ----------------------------------------------------------------------------------- the faults


def kill_9(series: Series, how: type[Ranks] | type[Launched], which: str) -> int:
    """Kill at a random moment: in the start, in an iteration, between two, in a save."""
    series.need(14)
    if how is Ranks and random.random() < 0.2:
        series.stop()
        run = series.start(how)
        time.sleep(random.uniform(0, 1))
    else:
        run = series.start(how)
        series.wait_for(run, 1)
        time.sleep(random.uniform(0, 0.6))
    if series.has_ended(run):
        series.clear()
        return kill_9(series, how, which)
    victims = list(run.ranks)
    if which == 'launcher':
        run.launcher.kill()
        gone = wait_until(lambda: not any(map(is_alive, victims)), PATIENCE)
        check(gone, 'ranks outlived their launcher')
    else:
        for process in [random.choice(victims)] if which == 'rank' else victims:
            os.kill(process, signal.SIGKILL)
    codes = run.finish(kill_the_rest=how is Ranks or which == 'launcher')
    if how is Launched and which == 'rank':
        last = series.output.read_text().splitlines()[-1]
        killed = re.fullmatch(r'Rank [01] was killed by SIGKILL, which ended the job\.', last)
        check(codes == [128 + signal.SIGKILL] and killed, f'{codes}: {last}')
    return series.resume_and_compare(series.complete(), how)


def kill_9_in_a_save(series: Series) -> int:
    series.need(14)
    run = series.start(Ranks)
    series.wait_for(run, random.choice((1, 2, 3, 4)))
    found = wait_until(lambda: [*series.work_dir.glob('.*.partial')] or run.poll(), PATIENCE)
    check(found and not run.poll(), 'nothing was saved')
    os.kill(run.ranks[0], signal.SIGKILL)
    run.finish(kill_the_rest=True)
    return series.resume_and_compare(series.complete())


def full_disk(series: Series) -> int:
    """A file system with room for two and a half checkpoints; without root, a limit of file size.

    The run goes on without saving; the last checkpoint that fitted is whole.
    """
    series.need(24)
    run = series.start(Ranks)
    series.wait_for(run, INTERVAL + 1)
    run.finish(kill_the_rest=True)
    series.check_digests()
    (newest,) = series.work_dir.glob(f'iter_{series.latest()}.pth')
    size = newest.stat().st_size
    before = series.latest()
    with small_disk(series.work_dir, newest, size * 5 // 2) as is_small:

        def limit(rank: int) -> None:
            if not is_small:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

        run = series.start(Ranks, prepare=limit)
        series.wait_for(run, 4 * INTERVAL)
        run.finish(kill_the_rest=True)
        text = series.output.read_text()
        check('cannot be written' in text and 'The training goes on' in text, series.words())
        latest = series.latest()
        check(latest == before + (INTERVAL if is_small else 0), f'the latest is {latest}')
        series.check_digests()
    return series.resume_and_compare(latest)


@contextlib.contextmanager
def small_disk(work_dir: Path, newest: Path, size: int) -> Iterator[bool]:
    """Put the work dir onto a file system of ``size`` bytes with one checkpoint; whether it is so.

    At the end its content is on the old file system again, as if there were room now.
    """
    aside = work_dir.with_name('aside')
    work_dir.rename(aside)
    work_dir.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(work_dir)]
    mounted = bool(shutil.which('mount')) and succeeds(mount)
    try:
        for name in (newest.name, f'{newest.name}.sha256', PROGRESS):
            shutil.copy(aside / name, work_dir)
        yield mounted
        shutil.rmtree(aside)
        shutil.copytree(work_dir, aside)
    finally:
        if mounted:
            subprocess.run(['umount', '--lazy', str(work_dir)], check=True)
        shutil.rmtree(work_dir)
        aside.rename(work_dir)


def pre_emption(series: Series, number: signal.Signals) -> int:
    """The launcher gets the signal; all ranks save and end, and nothing is lost at all."""
    series.need(14)
    run = series.start(Launched)
    series.wait_for(run, 1)
    run.launcher.send_signal(number)
    codes = run.finish()
    text = series.output.read_text()
    check(codes == [75], f'exit code {codes}: {series.words()}')
    check(text.count(f'StoppedError: {number.name}: stopped after iteration ') == 2, text[-1500:])
    check(
        text.splitlines()[-1]
        == f'{number.name} has ended the job; what its ranks saved stands above.',
        text[-1500:],
    )
    return series.resume_and_compare(series.new_lines()[-1][0])


def stopped_rank(series: Series, how: type[Ranks] | type[Launched]) -> int:
    """SIGSTOP: the others end at the time limit and name it."""
    series.need(14)
    run = series.start(how, MMSAM_TIMEOUT_MINUTES=str(STALL_SECONDS / 60))
    series.wait_for(run, 3)
    victim = random.randrange(2)
    os.kill(run.ranks[victim], signal.SIGSTOP)
    check(wait_until(run.poll, PATIENCE), 'the others went on waiting')
    codes = run.finish(kill_the_rest=how is Ranks)
    check(codes[0 if how is Launched else 1 - victim] == 5, f'{codes}: {series.words()}')
    text = series.output.read_text()
    found = re.search(
        # forked ranks have their store in rank 0, which may stop before it has told its progress
        rf'LaunchError: No rank has come on for \d+ s \(MMSAM_TIMEOUT_MINUTES\), rank {victim} '
        rf'posts nothing any more: rank {victim}, by its last post, '
        r'(finished iteration \d+|has posted no progress).*'
        rf'rank {1 - victim} finished iteration \d+',
        text,
    )
    check(found and 'most recent call first' in text, series.words())
    return series.resume_and_compare(series.complete())


def endless_loop(series: Series) -> int:
    """A transform of one rank does not return: both end, and name it and the line."""
    series.need(14)
    victim = random.randrange(2)

    def hang(rank: int) -> None:
        loads = LoadSAMImage.transform
        calls = itertools.count()

        def loop(self: LoadSAMImage, results: dict) -> dict:
            while rank == victim and next(calls) >= 4:
                pass
            return loads(self, results)

        LoadSAMImage.transform = loop

    run = series.start(Ranks, prepare=hang, MMSAM_TIMEOUT_MINUTES=str(STALL_SECONDS / 60))
    series.wait_for(run, 3)
    codes = run.finish()
    check(codes[victim] == 5, f'{codes}: {series.words()}')
    found = re.search(
        rf'LaunchError: .*, rank {victim} is behind: rank {victim} finished iteration \d+, at '
        r'inject\.py:\d+ in loop; ',
        series.output.read_text(),
    )
    check(found, series.words())
    return series.resume_and_compare(series.complete())


def lost_node(series: Series) -> int:
    """Each rank in a network of its own, joined by a cable that is cut.

    The networks belong to two processes and are gone with them.
    """
    series.need(14)
    with two_networks() as holders:

        def enter(rank: int) -> None:
            with open(f'/proc/{holders[rank]}/ns/net') as network:
                check(ctypes.CDLL(None).setns(network.fileno(), CLONE_NEWNET) == 0, 'setns')

        run = series.start(
            Ranks, prepare=enter, MASTER_ADDR='10.117.0.1', GLOO_SOCKET_IFNAME='cable',
            MMSAM_TIMEOUT_MINUTES=str(STALL_SECONDS / 60),
        )  # fmt: skip
        series.wait_for(run, 3)
        in_network(holders[1], 'ip', 'link', 'set', 'cable', 'down')
        codes = run.finish()
    check(codes == [5, 5], f'{codes}: {series.words()}')
    text = series.output.read_text()
    for rank in range(2):
        check(f'rank {rank} posts nothing any more' in text, series.words())
    return series.resume_and_compare(series.complete())


@contextlib.contextmanager
def two_networks() -> Iterator[list[int]]:
    """Ids of two processes whose networks, 10.117.0.1 and .2, are joined by ``cable``."""
    holders = [subprocess.Popen(['unshare', '--net', 'sleep', '600']) for _ in range(2)]
    ids = [holder.pid for holder in holders]
    try:
        here = os.readlink('/proc/self/ns/net')
        apart = wait_until(
            lambda: all(os.readlink(f'/proc/{number}/ns/net') != here for number in ids), PATIENCE
        )
        check(apart, 'no networks of their own')
        in_network(
            ids[0], 'ip', 'link', 'add', 'cable', 'type', 'veth',
            'peer', 'name', 'cable', 'netns', str(ids[1]),
        )  # fmt: skip
        for number, holder in enumerate(ids, start=1):
            in_network(holder, 'ip', 'address', 'add', f'10.117.0.{number}/24', 'dev', 'cable')
            in_network(holder, 'ip', 'link', 'set', 'lo', 'up')
            in_network(holder, 'ip', 'link', 'set', 'cable', 'up')
        yield ids
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def in_network(holder: int, *command: str) -> None:
    subprocess.run(['nsenter', '-t', str(holder), '--net', *command], check=True)


def can_make_networks() -> bool:
    tools = all(map(shutil.which, ('unshare', 'nsenter', 'ip')))
    return tools and succeeds(
        ['unshare', '--net', 'ip', 'link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'other']
    )


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def damaged_checkpoint(series: Series) -> int:
    """One bit of the latest is flipped: the one before is used, in so many words."""
    series.need(14)
    run = series.start(Ranks)
    series.wait_for(run, 2 * INTERVAL + 1)
    run.finish(kill_the_rest=True)
    series.check_digests()
    latest = training_checkpoints(series.work_dir)[0]
    content = bytearray(latest.read_bytes())
    content[random.randrange(len(content))] ^= 1
    latest.write_bytes(content)
    lost = series.resume_and_compare(series.latest() - INTERVAL)
    text = series.output.read_text()
    check(f'{latest.name} is damaged' in text and 'The one before is used' in text, text[-1500:])
    return lost


def deleted_image(series: Series) -> int:
    """An image vanishes during an epoch: the run ends and names it."""
    series.need(20)
    number = random.choice([n for n, count in enumerate(TRAIN_COUNTS, start=1) if count])
    image = series.data / 'images' / f'train_{number}.png'  # one that is not left out as empty
    aside = image.with_suffix('.aside')
    run = series.start(Ranks)
    try:
        series.wait_for(run, 1)
        image.rename(aside)
        check(wait_until(run.poll, PATIENCE), 'it went on')
        codes = run.finish()
    finally:
        aside.rename(image)
    text = series.output.read_text()
    wanted = f'DataError: Cannot read image file {image}: No such file or directory.'
    check(3 in codes and wanted in text, f'{codes}: {series.words()}')
    return series.resume_and_compare(series.complete())


def nan_batches(series: Series) -> int:
    """A batch that is NaN is left out and named, ten in a row end the run with 7.

    In a series of its own: what is never interrupted meets the NaN of iterations 3 and 8 to 16.
    The other is killed behind the first, meets one more in the resumed run, which ends it, and goes
    on without that one from the last checkpoint.
    """
    nine, ten = [3, *range(8, 17)], [3, *range(8, 18)]
    nan = Series(series.folder / f'nan_{time.monotonic_ns()}', 20, nine, series.data)
    with contextlib.closing(nan):
        return meet_nan(nan, nine, ten)


def meet_nan(nan: Series, nine: list[int], ten: list[int]) -> int:
    nan.run_without_a_fault()
    text = nan.output.read_text()
    for number in range(2, 21):
        changed = nan.expected[number] != nan.expected[number - 1]
        check(changed == (number not in nine), f'iteration {number}: weights changed {changed}')
        said = rf'Iteration {number}: NaN or infinite gradient, update left out .*train_\d\.png'
        check(bool(re.search(said, text)) != changed, f'iteration {number}: {nan.words()}')
    config = nan.config.read_text()
    nan.config.write_text(config.replace(str(nine), str(ten)))
    run = nan.start(Ranks)
    nan.wait_for(run, 5)
    run.finish(kill_the_rest=True)
    lost = nan.resume_and_compare(nan.complete())
    codes = nan.start(Ranks).finish()
    check(codes == [7, 7], f'{codes}: {nan.words()}')
    state = read_training_checkpoint(training_checkpoints(nan.work_dir)[0])['state_dict']
    check(all(bool(torch.isfinite(value).all()) for value in state.values()), 'not finite')
    nan.config.write_text(config)
    lost += nan.resume_and_compare(16)
    check(nan.start(Ranks).finish() == [0, 0], nan.words())
    nan.check_digests()
    return lost


CORRECT = """
import argparse
import torch
import torch.distributed as dist
from mmsam.apis import add_common_arguments, run_tool
from mmsam.engine import init_distributed

def main(args):
    init_distributed(args.launcher)
    dist.all_reduce(torch.ones(1))
    objects = [None] * dist.get_world_size()
    dist.all_gather_object(objects, dist.get_rank())

parser = argparse.ArgumentParser()
add_common_arguments(parser)
run_tool(main, parser.parse_args())
"""


def correct_run(series: Series) -> int:
    """Two ranks that exchange something, through launch_torchrun.sh and run_tool."""
    tool = series.folder / 'correct.py'
    tool.write_text(CORRECT)
    done = subprocess.run(
        [ROOT / 'tools' / 'launch_torchrun.sh', os.path.relpath(tool, ROOT / 'tools'), '2', 'x'],
        env=environment(CUDA_VISIBLE_DEVICES=''), capture_output=True, text=True,
    )  # fmt: skip
    check(done.returncode == 0, f'exit code {done.returncode}: {done.stderr[-1500:]}')
    return 0


# ------------------------------------------------------------------------------------ the table


@dataclasses.dataclass
class Fault:
    """A kind of fault.

    Args:
        name: in the table.
        inject: gets the series; returns the iterations that were lost.
        short, full: how many times.
        possible: whether this machine can do it.
        resumes: whether a run is resumed after it.
    """

    name: str
    inject: Callable[[Series], int]
    short: int
    full: int
    possible: Callable[[], bool] = lambda: True
    resumes: bool = True


FAULTS = [
    Fault('kill -9 of a rank', lambda s: kill_9(s, Ranks, 'rank'), 12, 40),
    Fault('kill -9 of all ranks', lambda s: kill_9(s, Ranks, 'all'), 3, 15),
    Fault('kill -9 in a save', kill_9_in_a_save, 4, 25),
    Fault('kill -9 of a launched rank', lambda s: kill_9(s, Launched, 'rank'), 0, 10),
    Fault('kill -9 of the launcher', lambda s: kill_9(s, Launched, 'launcher'), 1, 50),
    Fault('SIGTERM to the launcher', lambda s: pre_emption(s, signal.SIGTERM), 1, 3),
    Fault('SIGUSR1 to the launcher', lambda s: pre_emption(s, signal.SIGUSR1), 1, 3),
    Fault('SIGSTOP of a rank', lambda s: stopped_rank(s, Ranks), 1, 5),
    Fault('SIGSTOP of a launched rank', lambda s: stopped_rank(s, Launched), 0, 1),
    Fault('endless loop in a transform', endless_loop, 1, 5),
    Fault('node lost', lost_node, 1, 3, can_make_networks),
    Fault('disk full', full_disk, 1, 5),
    Fault('latest checkpoint damaged', damaged_checkpoint, 1, 10),
    Fault('image deleted', deleted_image, 1, 5),
    Fault('NaN batches', nan_batches, 1, 3),
    Fault('none; ends with exit code 0', correct_run, 0, 200, resumes=False),
]


def main() -> int:
    parser = argparse.ArgumentParser(description='Inject faults into training runs.')
    parser.add_argument('--short', action='store_true', help='few times, as in the tests')
    parser.add_argument('--only', nargs='+', metavar='FAULT', help='names, or parts of them')
    parser.add_argument('--times', type=int, help='of each fault, instead of the usual number')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args()
    random.seed(args.seed)
    torch.set_num_threads(1)
    chosen = [
        (fault, args.times or (fault.short if args.short else fault.full))
        for fault in FAULTS
        if not args.only or any(part in fault.name for part in args.only)
    ]
    table = PrettyTable(['fault', 'times', 'iterations lost', 'resumed equal', 'seconds'])
    table.align = 'r'
    table.align['fault'] = 'l'
    failures: list[str] = []
    # no TemporaryDirectory: the exit functions of the ranks, which inherit it, would remove it
    folder = Path(tempfile.mkdtemp(prefix='mmsam_faults_'))
    series = Series(folder / 'series', 40 if args.short else 100)
    try:
        series.warm_up()
        series.run_without_a_fault()
        for fault, times in chosen:
            if times:
                table.add_row(row(fault, times, series, failures))
                print(json.dumps(table.rows[-1]), file=sys.stderr, flush=True)
        with noted(failures, 'the last run'):
            series.stop()
    finally:
        series.clear()
        shutil.rmtree(folder)
    print(table)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


def row(fault: Fault, times: int, series: Series, failures: list[str]) -> list[object]:
    """Inject a fault so many times; its row of the table."""
    if not fault.possible():
        return [fault.name, 0, '-', 'skipped: needs root and ip', '-']
    start, lost, good = time.monotonic(), 0, 0
    for number in range(1, times + 1):
        before = len(failures)
        with noted(failures, f'{fault.name}, number {number}'):
            lost += fault.inject(series)
        if len(failures) > before:
            series.clear()
        else:
            good += 1
    if lost:
        failures.append(f'{fault.name}: {lost} iterations lost')
    equal = f'{good} of {times}' if good < times else 'yes' if fault.resumes else '-'
    return [fault.name, times, lost, equal, round(time.monotonic() - start)]


@contextlib.contextmanager
def noted(failures: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except FaultError as error:
        failures.append(f'{what}: {error}')


if __name__ == '__main__':
    sys.exit(main())
