"""Files that would run code, or grow, when they are read; damage is in test_checkpoint."""

import builtins
import copy
import functools
import importlib
import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from mmsam.checkpoint import read_state_dict
from mmsam.errors import CheckpointError
from mmsam.torch_file import read_torch_file
from mmsam.training_checkpoint import read_training_checkpoint


class Call:
    """Is pickled as the call of a function, which unpickling would make."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payloads(marker: Path) -> dict[str, object]:
    """Values whose unpickling by ``pickle`` creates the file ``marker``."""
    code = f'open({str(marker)!r}, "w").close()'
    command = f'touch {marker}'
    return {
        'os.system': Call(os.system, command),
        'os.popen': Call(os.popen, command),
        'subprocess.call': Call(subprocess.call, ['touch', str(marker)]),
        'subprocess.Popen': Call(subprocess.Popen, ['touch', str(marker)]),
        'eval': Call(eval, f'open({str(marker)!r}, "w").close()'),
        'exec': Call(exec, code),
        'open': Call(open, str(marker), 'w'),
        'partial': Call(functools.partial(os.system, command)),
        'pathlib': Call(Path.touch, marker),
        'import': Call(importlib.import_module, 'this'),
        '__import__': Call(builtins.__import__, 'antigravity'),
        'os.mkdir': Call(os.mkdir, str(marker)),
    }  # fmt: skip


NAMES = list(payloads(Path('x')))
PLACES = {
    'as a tensor': lambda bad: {'state_dict': {'weight': bad}},
    'in the meta': lambda bad: {
        'meta': {'cfg': bad}, 'state_dict': {'weight': torch.ones(1)},
        'message_hub': {}, 'optimizer': {},
    },
    'as the whole': lambda bad: bad,
}  # fmt: skip
READERS = {
    'weights': lambda path: read_state_dict(str(path)),
    'resume': read_training_checkpoint,
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('name', NAMES)
@pytest.mark.bad_input(53)
def test_nothing_is_run(tmp_path, name, place, zipped, reader):
    marker = tmp_path / 'ran'
    path = tmp_path / 'file.pth'
    content = PLACES[place](payloads(marker)[name])
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as error:
        READERS[reader](path)
    assert not marker.exists()
    assert 'weights_only' not in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name', [name for name in NAMES if 'import' not in name])
def test_the_payloads_are_real(tmp_path, name):
    """Plain pickle does run them: the test above could fail."""
    marker = tmp_path / 'ran'
    data = pickle.dumps(payloads(marker)[name])
    result = pickle.loads(data)
    if isinstance(result, subprocess.Popen):
        result.wait()
    elif hasattr(result, 'close'):
        result.close()
    assert marker.exists()


@pytest.mark.bad_input(55)
def test_a_compressed_archive_is_refused_unread(tmp_path):
    """262 kB that would become 268 MB."""
    path = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data/0', bytes(1 << 28))
    assert path.stat().st_size < 300_000
    with pytest.raises(CheckpointError, match='compressed archive, which torch never writes'):
        read_torch_file(path)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.bad_input(55)
def test_a_tensor_that_would_grow_is_refused(tmp_path, place, zipped):
    """1 GiB out of 4 bytes."""
    path = tmp_path / 'bomb.pth'
    content = PLACES[place](torch.ones(1).expand(1 << 28))
    torch.save([content], path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 3000
    with pytest.raises(CheckpointError, match=f'but one of its tensors would take {1 << 30}'):
        read_torch_file(path)


def test_tensors_that_share_their_memory_are_not_refused(tmp_path):
    whole = torch.arange(1000.0)
    torch.save({'whole': whole, 'again': whole, 'view': whole[500:]}, tmp_path / 'tied.pth')
    content = read_torch_file(tmp_path / 'tied.pth')
    assert all(torch.equal(content[key], whole) for key in ('whole', 'again'))


def test_members_that_lie_on_each_other_are_refused(tmp_path):
    """A thousand names of one megabyte."""
    path = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data/0', bytes(1 << 20))
        (first,) = archive.filelist
        for number in range(1, 1000):
            other = copy.copy(first)
            other.filename = f'archive/data/{number}'
            archive.filelist.append(other)
    with pytest.raises(CheckpointError, match='members overlap'):
        read_torch_file(path)
