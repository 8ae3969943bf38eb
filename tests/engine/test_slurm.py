import os
import socket
from datetime import timedelta

import pytest
import torch.distributed as dist

from mmsam.engine import slurm
from mmsam.errors import LaunchError

SECONDS = timedelta(seconds=20)


@pytest.mark.parametrize(
    ('node_list', 'names'),
    [
        ('gpu3', ['gpu3']),
        ('n[1-3]', ['n1', 'n2', 'n3']),
        ('n[008-011,7],gpu3', ['n008', 'n009', 'n010', 'n011', 'n7', 'gpu3']),
        ('r[1-2]n[09-10]', ['r1n09', 'r1n10', 'r2n09', 'r2n10']),
        ('a-b.c,n[2]', ['a-b.c', 'n2']),
    ],
)
@pytest.mark.bad_input(78)
def test_host_names(node_list, names):
    assert slurm.host_names(node_list) == names


@pytest.mark.parametrize('node_list', ['', 'n[1-', 'n]1[', 'n[1-x]', 'n[]', 'n[2-1]', ','])
def test_what_is_no_node_list(node_list):
    with pytest.raises(LaunchError, match='Expected a Slurm node list') as error:
        slurm.host_names(node_list)
    assert repr(node_list) in str(error.value)


def test_ports_of_jobs_and_steps_differ(monkeypatch):
    def port(job, step):
        monkeypatch.setenv('SLURM_JOB_ID', str(job))
        monkeypatch.setenv('SLURM_STEP_ID', str(step))
        return slurm.port_of_step()

    ports = [port(job, step) for job in range(5000000, 5000300) for step in range(31)]
    assert len(set(ports)) == len(ports)
    assert 10000 <= min(ports) and max(ports) < 30000


@pytest.fixture
def step(monkeypatch):
    """Sets the variables of a process of job 7, on a free port; returns the port."""
    with socket.create_server(('', 0)) as listener:
        port = listener.getsockname()[1]
    variables = dict(RANK=0, WORLD_SIZE=2, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    variables |= dict(SLURM_JOB_ID=7, SLURM_STEP_ID=0, SLURM_RESTART_COUNT=0)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return port


def test_processes_of_a_step_meet(step, monkeypatch):
    server = slurm.open_store(SECONDS)
    server.set('key', 'value')
    monkeypatch.setenv('RANK', '1')
    assert slurm.open_store(SECONDS).get('key') == b'value'


@pytest.mark.bad_input(77)
@pytest.mark.parametrize('variable', ['SLURM_JOB_ID', 'SLURM_STEP_ID', 'SLURM_RESTART_COUNT'])
def test_another_job_is_not_joined(step, variable, monkeypatch):
    server = slurm.open_store(SECONDS)
    monkeypatch.setenv(variable, '1')
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(LaunchError, match='rank 1 on .* met another job') as error:
        slurm.open_store(SECONDS)
    assert str(error.value).endswith('got 7.0.0. Set another PORT=.')
    assert server.num_keys() == 1, 'the name of the step; nothing was added'


def test_a_store_of_something_else(step, monkeypatch):
    server = dist.TCPStore('127.0.0.1', step, 1, True, SECONDS)
    monkeypatch.setattr(slurm, 'STORE_WAIT', timedelta(seconds=0.5))
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(LaunchError, match='expected step 7.0.0 .* got unknown'):
        slurm.open_store(SECONDS)
    del server


def test_a_taken_port(step):
    with socket.create_server(('', step)):
        with pytest.raises(LaunchError, match=f'^Port {step} is taken on 127.0.0.1: set another'):
            slurm.open_store(SECONDS)


def test_nobody_answers(step, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(LaunchError, match=f'127.0.0.1:{step} cannot be reached'):
        slurm.open_store(timedelta(seconds=0.5))


def test_an_unknown_address(step, monkeypatch):
    monkeypatch.setenv('MASTER_ADDR', 'nowhere.invalid')
    with pytest.raises(LaunchError, match="^MASTER_ADDR 'nowhere.invalid' is unknown to rank 0 on"):
        slurm.open_store(SECONDS)


def test_an_address_of_another_machine(step, monkeypatch):
    monkeypatch.setenv('MASTER_ADDR', '192.0.2.1')  # RFC 5737: of no machine
    with pytest.raises(LaunchError, match="'192.0.2.1' is 192.0.2.1, which is no address of this"):
        slurm.open_store(SECONDS)


def test_the_interface_to_this_machine():
    assert slurm.interface_to('127.0.0.1') == 'lo'


def test_the_interface_to_nowhere():
    assert slurm.interface_to('nowhere.invalid') is None


@pytest.mark.parametrize(('count', 'requeued'), [(None, False), ('0', False), ('2', True)])
def test_is_requeued(count, requeued, monkeypatch):
    monkeypatch.delenv('SLURM_RESTART_COUNT', raising=False)
    if count is not None:
        monkeypatch.setenv('SLURM_RESTART_COUNT', count)
    assert slurm.is_requeued() is requeued
    assert os.environ.get('SLURM_RESTART_COUNT') == count
