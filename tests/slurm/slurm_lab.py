"""A Slurm cluster of several nodes on one Linux machine, for as long as a test or a command runs.

    python tests/slurm/slurm_lab.py [--nodes 2] [--gpus 2] [--networks] COMMAND [ARGUMENT ...]

runs the command with ``SLURM_CONF`` set, so that srun, sbatch and scontrol reach the cluster. It
needs root and the packages ``slurm-wlm munge iproute2``; no systemd, no GPU (its GPUs are copies
of ``/dev/null``). Partitions: ``dev``, whose jobs are requeued for those of ``urgent``, and
``cpu``, whose node has no GPUs.
"""

import argparse
import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'srun', 'sbatch', 'scontrol', 'ip')
SECONDS_TO_START = 60
NETWORK = '198.18.77'
"""Of the nodes with a network of their own; RFC 2544 keeps 198.18.0.0/15 for tests."""

GRACE = 30
"""Seconds between the SIGTERM of a pre-emption and the SIGKILL."""

CONF = """
ClusterName=mmsam
SlurmctldHost={host}({controller})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
JobRequeue=1
KillWait=5
MinJobAge=600
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MailProg=/bin/true
{nodes}
PartitionName=dev Nodes={gpu_nodes} Default=YES State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes={gpu_nodes} State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=cpu Nodes=c1 State=UP
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None if it can."""
    missing = [program for program in PROGRAMS if _which(program) is None]
    if missing:
        return f'{", ".join(missing)} missing (Debian: slurm-wlm munge iproute2)'
    if os.geteuid() != 0:
        return 'needs root'
    return None


def _which(program: str) -> str | None:
    return shutil.which(program, path=f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin')


class SlurmLab:
    """A running cluster.

    Args:
        folder: of its configuration, state and logs.
        nodes: with GPUs, ``n1`` to ``n<nodes>``; beside them ``c1`` without.
        gpus: of each of these nodes.
        cpus: that each node claims to have.
        networks: a network of its own for each node, so that ``cut`` can take it off.
    """

    def __init__(self, folder: Path, nodes: int, gpus: int, cpus: int, networks: bool) -> None:
        self.folder = folder
        self.names = [*(f'n{number}' for number in range(1, nodes + 1)), 'c1']
        self.gpus, self.cpus, self.networks = gpus, cpus, networks
        self.conf = folder / 'slurm.conf'
        self.environment = {**os.environ, 'SLURM_CONF': str(self.conf)}
        self.environment['PATH'] += ':/usr/sbin:/sbin'
        self._daemons: list[subprocess.Popen] = []
        self._tag = f'mmsam{os.getpid()}'

    def start(self) -> None:
        """Start all daemons.

        Raises:
            RuntimeError: the nodes are not ready within ``SECONDS_TO_START``.
        """
        (self.folder / 'state').mkdir()
        self._write_files()
        if self.networks:
            self._make_networks()
        self._munge()
        self._daemon('slurmctld', '-D', '-f', str(self.conf))
        for name in self.names:
            (self.folder / f'spool.{name}').mkdir()
            self._node(name)
        end = time.monotonic() + SECONDS_TO_START
        while self._idle() != set(self.names):
            if time.monotonic() > end:
                logs = [path.read_text()[-1500:] for path in self.folder.glob('*.log')]
                raise RuntimeError('the nodes do not come up:\n' + '\n'.join(logs))
            time.sleep(0.2)

    def stop(self) -> None:
        """End all jobs and daemons; nothing is left but the folder."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run('scancel', '--full', '--user=root', timeout=10)
            end = time.monotonic() + 15
            while self.run('squeue', '--noheader', timeout=10).stdout and time.monotonic() < end:
                time.sleep(0.3)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._kill_steps()
        if self.networks:
            for name in self.names:
                self._ip('netns', 'del', self._namespace(name), check=False)
            self._ip('link', 'del', self._bridge, check=False)

    def run(
        self,
        *command: str,
        cwd: Path | None = None,
        timeout: float | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess:
        """Run a command that finds this cluster; its output is text.

        Args:
            command: program and arguments.
            cwd: folder; else this process's.
            timeout: in s.
            variables: of the environment, beside those of this process.
        """
        return subprocess.run(
            command,
            cwd=cwd,
            timeout=timeout,
            env={**self.environment, **(variables or {})},
            capture_output=True,
            text=True,
        )

    def cut(self, name: str) -> None:
        """Take a node off the network."""
        self._ip('-n', self._namespace(name), 'link', 'set', 'eth0', 'down')

    def _idle(self) -> set[str]:
        listed = self.run('sinfo', '--noheader', '--Node', '--states=idle', '--format=%N')
        return set(listed.stdout.split())

    def _daemon(self, *command: str) -> None:
        log = (self.folder / f'{len(self._daemons)}.out').open('w')
        self._daemons.append(
            subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        )

    def _munge(self) -> None:
        key = self.folder / 'munge.key'
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        names = dict(socket='sock', pid_file='pid', seed_file='seed', log_file='log')
        places = [
            f'--{option.replace("_", "-")}={self.folder}/munge.{end}'
            for option, end in names.items()
        ]
        self._daemon('munged', '--foreground', '--force', f'--key-file={key}', *places)
        end = time.monotonic() + SECONDS_TO_START
        while not (self.folder / 'munge.sock').exists() and time.monotonic() < end:
            time.sleep(0.05)

    def _node(self, name: str) -> None:
        # each node sees its own names of hosts; slurmd fails below `ip netns exec`, which
        # mounts another /sys
        script = f'mount --bind {self.folder}/hosts.{name} /etc/hosts; '
        command = ['unshare', '--mount']
        if self.networks:
            command = ['nsenter', f'--net=/run/netns/{self._namespace(name)}', *command, '--uts']
            script += f'hostname {name}; '
        script += f'exec slurmd -D -N {name} -f {self.conf}'
        self._daemon(*command, 'bash', '-c', script)

    def _write_files(self) -> None:
        own = socket.gethostname().partition('.')[0]
        ports = _free_ports(len(self.names) + 1)
        places = {
            name: f'{NETWORK}.{number}' if self.networks else '127.0.0.1'
            for number, name in enumerate(self.names, start=1)
        }
        lines = []
        for name, port in zip(self.names, ports[1:], strict=True):
            hosts = [f'127.0.0.1 localhost {own}']
            if self.networks:
                hosts.append(f'127.0.1.1 {name}')  # as Debian's installer does
            hosts += [f'{place} {other}' for other, place in places.items() if other != name]
            if not self.networks:
                hosts.append(f'127.0.0.1 {name}')
            (self.folder / f'hosts.{name}').write_text('\n'.join(hosts) + '\n')
            gres = '' if name == 'c1' else f' Gres=gpu:{self.gpus}'
            lines.append(
                f'NodeName={name} NodeHostname={name if self.networks else own} '
                f'NodeAddr={places[name]} Port={port} CPUs={self.cpus} RealMemory=4000{gres}'
            )
        self.conf.write_text(
            CONF.format(
                host=own,
                controller=f'{NETWORK}.254' if self.networks else '127.0.0.1',
                port=ports[0],
                folder=self.folder,
                nodes='\n'.join(lines),
                gpu_nodes=','.join(self.names[:-1]),
                grace=GRACE,
            )
        )
        # without device files Slurm counts no GPUs
        for number in range(self.gpus):
            os.mknod(self.folder / f'gpu{number}', 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        files = f'File={self.folder}/gpu[0-{self.gpus - 1}]'
        nodes = ','.join(self.names[:-1])
        (self.folder / 'gres.conf').write_text(
            f'AutoDetect=off\nNodeName={nodes} Name=gpu {files}\n'
        )

    @property
    def _bridge(self) -> str:
        return f'{self._tag}b'

    def _namespace(self, name: str) -> str:
        return f'{self._tag}-{name}'

    def _make_networks(self) -> None:
        self._ip('link', 'add', self._bridge, 'type', 'bridge')
        self._ip('addr', 'add', f'{NETWORK}.254/24', 'dev', self._bridge)
        self._ip('link', 'set', self._bridge, 'up')
        for number, name in enumerate(self.names, start=1):
            space, outer = self._namespace(name), f'{self._tag}v{number}'
            self._ip('netns', 'add', space)
            self._ip(
                'link', 'add', outer, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space
            )  # fmt: skip
            self._ip('link', 'set', outer, 'master', self._bridge, 'up')
            self._ip('-n', space, 'addr', 'add', f'{NETWORK}.{number}/24', 'dev', 'eth0')
            for link in ('eth0', 'lo'):
                self._ip('-n', space, 'link', 'set', link, 'up')

    def _ip(self, *arguments: str, check: bool = True) -> None:
        subprocess.run(
            ['ip', *arguments], env=self.environment, check=check, stderr=subprocess.DEVNULL
        )

    def _kill_steps(self) -> None:
        """Kill slurmstepd processes that are left, known by a file that they hold open."""
        for folder in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                if not (folder / 'cmdline').read_bytes().startswith(b'slurmstepd'):
                    continue
                targets = [os.readlink(path) for path in (folder / 'fd').iterdir()]
                if any(target.startswith(f'{self.folder}/') for target in targets):
                    os.kill(int(folder.name), 9)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(('', 0))
        return [listener.getsockname()[1] for listener in listeners]


@contextlib.contextmanager
def slurm_lab(
    nodes: int = 2, gpus: int = 2, cpus: int = 64, networks: bool = False
) -> Iterator[SlurmLab]:
    """A cluster that runs in the meantime; arguments are those of ``SlurmLab``."""
    folder = Path(tempfile.mkdtemp(prefix='slurm_lab_'))
    lab = SlurmLab(folder, nodes, gpus, cpus, networks)
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--nodes', type=int, default=2, help='with GPUs; beside them c1')
    parser.add_argument('--gpus', type=int, default=2, help='of each of these nodes')
    parser.add_argument('--networks', action='store_true', help='one of its own for each node')
    parser.add_argument('command', nargs=argparse.REMAINDER)
    args = parser.parse_args()
    reason = why_not()
    if reason is not None:
        print(f'No Slurm cluster can be started here: {reason}.', file=sys.stderr)
        return 1
    with slurm_lab(args.nodes, args.gpus, networks=args.networks) as lab:
        return subprocess.run(args.command, env=lab.environment).returncode


if __name__ == '__main__':
    sys.exit(main())
