import os
import socket
from datetime import timedelta

import pytest
import torch.distributed as dist

from mmsam.engine import distributed, init_distributed
from mmsam.errors import LaunchError


@pytest.fixture
def joined(monkeypatch):
    """Backends of the groups that would have been created; the environment starts empty."""
    backends: list[str] = []
    monkeypatch.setattr(os, 'environ', {'PATH': ''})
    monkeypatch.setattr(dist, 'init_process_group', lambda backend, **_: backends.append(backend))
    monkeypatch.setattr(distributed.slurm, 'open_store', lambda timeout: None)
    monkeypatch.setattr(distributed.torch.cuda, 'is_available', lambda: False)
    return backends


def set_variables(**variables: object) -> None:
    os.environ.update({name: str(value) for name, value in variables.items()})


def torch_variables() -> dict[str, str]:
    names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    return {name: os.environ[name] for name in names}


TORCHRUN = dict(RANK=3, LOCAL_RANK=1, WORLD_SIZE=4, MASTER_ADDR='gpu7', MASTER_PORT=4711)


def test_none_joins_nothing(joined):
    init_distributed('none')
    assert joined == []


@pytest.mark.bad_input(79)
def test_torchrun(joined):
    set_variables(**TORCHRUN)
    init_distributed('pytorch')
    assert joined == ['gloo']
    assert torch_variables() == {name: str(value) for name, value in TORCHRUN.items()}


@pytest.mark.parametrize(('count', 'device'), [(4, 1), (2, 1), (1, 0), (0, None)])
def test_gpus_use_nccl_and_their_own_device(joined, monkeypatch, count, device):
    devices = []
    monkeypatch.setattr(distributed.torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(distributed.torch.cuda, 'set_device', devices.append)
    monkeypatch.setattr(distributed.torch.cuda, 'device_count', lambda: count)
    set_variables(**TORCHRUN)
    if device is None:
        with pytest.raises(LaunchError, match='^Process 1 of this machine .* sees 0'):
            init_distributed('pytorch')
    else:
        init_distributed('pytorch')
        assert (joined, devices) == (['nccl'], [device])


SLURM = dict(SLURM_PROCID=5, SLURM_LOCALID=1, SLURM_NTASKS=8, SLURM_NODEID=2)


def test_slurm(joined):
    set_variables(**SLURM, SLURM_NODELIST='n[01-04,7],gpu3', SLURM_JOB_ID=7, SLURM_STEP_ID=2)
    init_distributed('slurm')
    assert torch_variables() == dict(
        RANK='5', LOCAL_RANK='1', WORLD_SIZE='8', MASTER_ADDR='n01', MASTER_PORT='10219'
    )  # 10000 + 31 * 7 + 2


def test_a_step_on_some_of_the_job_s_nodes(joined):
    set_variables(**SLURM, SLURM_NODELIST='n[01-04]', SLURM_STEP_NODELIST='n[03-04]')
    init_distributed('slurm')
    assert os.environ['MASTER_ADDR'] == 'n03'


@pytest.mark.parametrize(
    ('node', 'hosts', 'asked'), [(0, 'a,b', ['b']), (1, 'a,b', ['a']), (0, 'a', [])]
)
def test_gloo_takes_the_interface_that_leads_to_another_node(
    joined, monkeypatch, node, hosts, asked
):
    hosts_asked = []
    monkeypatch.setattr(
        distributed.slurm, 'interface_to', lambda host: hosts_asked.append(host) or 'eth7'
    )
    set_variables(**SLURM | dict(SLURM_NODEID=node), SLURM_NODELIST=hosts)
    init_distributed('slurm')
    assert hosts_asked == asked
    assert os.environ.get('GLOO_SOCKET_IFNAME') == ('eth7' if asked else None)


def test_an_interface_that_is_set_is_kept(joined):
    set_variables(**SLURM, SLURM_NODELIST='a,b', GLOO_SOCKET_IFNAME='ib0')
    init_distributed('slurm')
    assert os.environ['GLOO_SOCKET_IFNAME'] == 'ib0'


def test_slurm_keeps_an_address_and_a_port_that_are_set(joined):
    set_variables(
        SLURM_PROCID=0, SLURM_LOCALID=0, SLURM_NTASKS=1, SLURM_NODEID=0, SLURM_NODELIST='a,b',
        MASTER_ADDR='b', MASTER_PORT=1234,
    )  # fmt: skip
    init_distributed('slurm')
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('b', '1234')


def test_slurm_goes_before_variables_of_an_outer_job(joined):
    """A shell inside an allocation may carry RANK of something else."""
    set_variables(RANK=9, LOCAL_RANK=9, WORLD_SIZE=99)
    set_variables(SLURM_PROCID=0, SLURM_LOCALID=0, SLURM_NTASKS=2, SLURM_NODELIST='a')
    init_distributed('slurm')
    assert (os.environ['RANK'], os.environ['LOCAL_RANK'], os.environ['WORLD_SIZE']) == (
        '0', '0', '2',
    )  # fmt: skip


def test_mpi(joined):
    set_variables(OMPI_COMM_WORLD_RANK=1, OMPI_COMM_WORLD_LOCAL_RANK=1, OMPI_COMM_WORLD_SIZE=2)
    init_distributed('mpi')
    assert torch_variables() == dict(
        RANK='1', LOCAL_RANK='1', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT='29500'
    )


@pytest.mark.parametrize(
    ('launcher', 'missing'),
    [
        ('pytorch', 'RANK'),
        ('slurm', 'SLURM_PROCID'),
        ('mpi', 'OMPI_COMM_WORLD_RANK'),
    ],
)
def test_a_missing_variable_is_named(joined, launcher, missing):
    with pytest.raises(LaunchError, match=f'set no {missing}:'):
        init_distributed(launcher)
    assert joined == []


@pytest.mark.parametrize('missing', ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR'])
def test_every_variable_of_torchrun_is_needed(joined, missing):
    set_variables(**TORCHRUN)
    del os.environ[missing]
    with pytest.raises(LaunchError, match=f'set no {missing}:'):
        init_distributed('pytorch')


@pytest.mark.parametrize(
    ('setting', 'seconds'),
    [(None, 1800), ('30', 5400), ('0.5', 90), (' 2 ', 360), ('1e1', 1800), ('10080', 1814400)],
)
def test_timeout(joined, monkeypatch, setting, seconds):
    options = {}
    monkeypatch.setattr(dist, 'init_process_group', lambda backend, **rest: options.update(rest))
    set_variables(**TORCHRUN)
    if setting is not None:
        set_variables(MMSAM_TIMEOUT_MINUTES=setting)
    init_distributed('pytorch')
    assert options == {'timeout': timedelta(seconds=seconds)}


@pytest.mark.parametrize('setting', ['', 'x', '0', '-1', 'nan', 'inf', '1e300', '10081', '1 h'])
def test_what_is_no_timeout(joined, setting):
    set_variables(**TORCHRUN, MMSAM_TIMEOUT_MINUTES=setting)
    with pytest.raises(LaunchError, match='^MMSAM_TIMEOUT_MINUTES: expected') as error:
        init_distributed('pytorch')
    assert repr(setting) in str(error.value)
    assert joined == []


def test_slurm_without_a_node_list(joined):
    set_variables(SLURM_PROCID=0, SLURM_LOCALID=0, SLURM_NTASKS=1)
    with pytest.raises(LaunchError, match='SLURM_NODELIST'):
        init_distributed('slurm')


@pytest.mark.trap(17)
def test_a_taken_port(monkeypatch):
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = other.getsockname()[1]
        variables = dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1')
        for name, value in dict(variables, MASTER_PORT=port).items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(distributed.torch.cuda, 'is_available', lambda: False)
        with pytest.raises(LaunchError, match=f'Rank 0 .* 127.0.0.1:{port}; is the port taken'):
            init_distributed('pytorch')
    assert not dist.is_initialized()


def test_an_error_for_which_the_disk_has_no_room(tmp_path, monkeypatch):
    """The error itself is what counts; half a file would end torchrun."""
    path = tmp_path / 'error.json'
    path.symlink_to('/dev/full')
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(path))
    distributed.leave_to_torchrun('DataError: no mask.', 3)
    assert not path.is_symlink()
