"""What a process started by Slurm's srun must know to find the others of its job step."""

import itertools
import os
import re
import socket
import struct
import sys
from datetime import timedelta

import torch.distributed as dist

from mmsam.errors import LaunchError

STORE_KEY = 'slurm_step'
STORE_WAIT = timedelta(minutes=1)
"""How long a rank waits for the name of the step in a store that it has reached."""

PORTS = range(10000, 30000)
"""Below the ports that Linux gives to outgoing connections (from 32768)."""

SIOCGIFADDR = 0x8915
"""Of Linux's ``ioctl``: the IPv4 address of an interface."""


def host_names(node_list: str) -> list[str]:
    """The hosts of a Slurm node list such as ``n[01-03,7],gpu3,r[1-2]n[1-2]``, in its order.

    ``scontrol show hostnames`` says the same, but containers often lack it.

    Raises:
        LaunchError: it is no node list.
    """
    pattern = r'(?:[^,\[\]]|\[[^\[\]]*\])+'
    if not re.fullmatch(f'{pattern}(?:,{pattern})*', node_list):
        raise _no_node_list(node_list)
    names: list[str] = []
    for item in re.findall(pattern, node_list):
        parts = [
            _numbers(part[1:-1], node_list) if part.startswith('[') else [part]
            for part in re.findall(r'\[[^\]]*\]|[^\[]+', item)
        ]
        names += map(''.join, itertools.product(*parts))
    if not names:
        raise _no_node_list(node_list)
    return names


def _no_node_list(node_list: str) -> LaunchError:
    return LaunchError(f'Expected a Slurm node list such as n[01-04,7], got {node_list!r}.')


def _numbers(ranges: str, node_list: str) -> list[str]:
    """The numbers of ``01-03,7``, as wide as they are written."""
    numbers = []
    for text in ranges.split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+))?', text)
        if match is None:
            raise _no_node_list(node_list)
        first, last = match[1], match[2] or match[1]
        numbers += [f'{number:0{len(first)}}' for number in range(int(first), int(last) + 1)]
    return numbers


def job_id() -> str | None:
    """Number of the Slurm job that this process belongs to; a requeued job keeps it."""
    return os.environ.get('SLURM_JOB_ID')


def is_requeued() -> bool:
    """Whether Slurm has started this job before."""
    return os.environ.get('SLURM_RESTART_COUNT', '0') != '0'


def port_of_step() -> int:
    """A port that other jobs, and other steps of this one, are unlikely to have on the same node.

    All processes of the step come to the same without asking each other.
    """
    job, step = int(job_id() or 0), int(os.environ.get('SLURM_STEP_ID', 0))
    return PORTS[(31 * job + step) % len(PORTS)]


def open_store(timeout: timedelta) -> dist.TCPStore:
    """The store by which the processes of this step find each other; rank 0 serves it.

    Reads ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``. torch's own store would
    let a process join that of another job which has the same port; here the store says whose it is.

    Raises:
        LaunchError: the address is unknown, or not one of the machine that rank 0 runs on; the
            port is taken there, or nobody of this step answers.
    """
    address, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    is_server = os.environ['RANK'] == '0'
    here = f'rank {os.environ["RANK"]} on {socket.gethostname()}'
    _check_address(address, is_server, here)
    try:
        store = dist.TCPStore(
            address,
            port,
            int(os.environ['WORLD_SIZE']),
            is_server,
            timeout,
            wait_for_workers=False,
        )
    except RuntimeError as error:  # torch's DistError classes are RuntimeErrors
        if 'EADDRINUSE' in str(error):
            raise LaunchError(f'Port {port} is taken on {address}: set another PORT=.') from None
        raise LaunchError(f'From {here}, {address}:{port} cannot be reached: {error}') from None
    wanted = '.'.join(
        os.environ.get(name, '0')
        for name in ('SLURM_JOB_ID', 'SLURM_STEP_ID', 'SLURM_RESTART_COUNT')
    )
    if is_server:
        store.set(STORE_KEY, wanted)
        return store
    try:
        store.wait([STORE_KEY], STORE_WAIT)
        found = store.get(STORE_KEY).decode()
    except RuntimeError:
        found = 'unknown'
    if found != wanted:
        raise LaunchError(
            f'At {address}:{port}, {here} met another job: expected step {wanted} '
            f'(job.step.restart), got {found}. Set another PORT=.'
        )
    return store


def _check_address(address: str, is_server: bool, here: str) -> None:
    try:
        places = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise LaunchError(
            f'MASTER_ADDR {address!r} is unknown to {here} ({error.strerror}).'
        ) from None
    if not is_server:
        return
    for family, kind, _, _, place in places:
        try:
            with socket.socket(family, kind) as listener:
                listener.bind(place)
        except OSError:
            continue
        return
    raise LaunchError(
        f'MASTER_ADDR {address!r} is {places[0][4][0]}, which is no address of this machine, '
        f'where it is needed: {here}.'
    )


def interface_to(host: str) -> str | None:
    """Name of the network interface by which IPv4 packets to ``host`` leave; None if unknown."""
    if sys.platform != 'linux':
        return None
    import fcntl

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            own_address = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                request = struct.pack('256s', name.encode())
                try:
                    answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
                except OSError:  # without an IPv4 address
                    continue
                if socket.inet_ntoa(answer[20:24]) == own_address:
                    return name
    except OSError:
        pass
    return None
