"""Which of several failed ranks is named, by torch's own reading of what they left."""

import importlib.util
import json
import signal
import time
from types import SimpleNamespace

import pytest
from tiny_run import ROOT
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mmsam.engine.distributed import leave_to_torchrun


@pytest.fixture
def launcher():
    path = ROOT / 'tools' / 'launch_torchrun.py'
    spec = importlib.util.spec_from_file_location('launch_torchrun', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def failure(tmp_path, monkeypatch):
    """Makes the failure of a rank that left ``words`` at ``seconds``, or nothing."""

    def make(rank, code, words=None, seconds=0.0, own_code=1):
        path = tmp_path / f'{rank}.json'
        monkeypatch.setattr(time, 'time', lambda: 1e9 + seconds)
        if words is not None:
            monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(path))
            leave_to_torchrun(words, own_code)
        return ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file=str(path))

    return make


def named(launcher, capsys, *failures):
    with pytest.raises(SystemExit) as ended:
        launcher.end_for_the_first({failure.local_rank: failure for failure in failures})
    return ended.value.code, capsys.readouterr().err


def test_a_rank_that_torchrun_ended_is_not_the_first(launcher, failure, capsys):
    words = 'DataError: no mask.'
    failures = [failure(0, -signal.SIGTERM), failure(1, 3, words, 0.9, 3)]
    assert named(launcher, capsys, *failures) == (3, f'Rank 1 ended the job:\n{words}\n')


def test_a_rank_ended_by_torchrun_on_its_way_out(launcher, failure, capsys):
    failures = [failure(0, 1, 'closed by peer', 0.8), failure(1, -15, 'DataError: no.', 0.7, 3)]
    assert named(launcher, capsys, *failures) == (3, 'Rank 1 ended the job:\nDataError: no.\n')


def test_a_rank_killed_before_others_fail_from_it(launcher, failure, capsys):
    failures = [failure(0, 1, 'closed by peer', 0.95), failure(1, -signal.SIGKILL, None, 1.05)]
    code, text = named(launcher, capsys, *failures)
    assert (code, text) == (137, 'Rank 1 was killed by SIGKILL, which ended the job.\n')


def test_a_rank_that_torchrun_had_to_kill(launcher, failure, capsys):
    failures = [failure(0, -signal.SIGKILL, None, 30.0), failure(1, 3, 'first', 0.5, 3)]
    assert named(launcher, capsys, *failures)[0] == 3


def test_a_rank_without_words(launcher, failure, capsys):
    code, text = named(launcher, capsys, failure(1, 7))
    assert code == 7
    assert text == 'Rank 1 ended the job with exit code 7; what it printed stands above.\n'


def test_all_killed_by_a_sigterm_of_others(launcher, failure, capsys):
    failures = [failure(0, -signal.SIGTERM), failure(1, -signal.SIGTERM)]
    assert named(launcher, capsys, *failures)[0] == 143


def test_the_file_is_one_that_torch_reads(launcher, failure, tmp_path):
    failure(0, 3, 'words', 0.25, 3)
    content = json.loads((tmp_path / '0.json').read_text())
    assert content['message']['message'] == 'words'
    assert content['message']['extraInfo']['time'] == 1e9 + 0.25


def after_sigterm(launcher, capsys, folder, *codes):
    """A job whose ranks 2 and 3, on this machine 0 and 1, ended with these codes."""
    handlers = {
        rank: SimpleNamespace(proc=SimpleNamespace(pid=1, poll=lambda code=code: code))
        for rank, code in enumerate(codes)
    }
    ranks = SimpleNamespace(
        subprocess_handlers=handlers,
        envs={rank: {'RANK': str(rank + 2)} for rank in handlers},
        error_files={rank: str(folder / f'{rank}.json') for rank in handlers},
    )
    with pytest.raises(SystemExit) as ended:
        launcher.end_after_signal(signal.SIGTERM, ranks)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize('code', [75, -signal.SIGKILL])
def test_ranks_that_a_signal_has_stopped(launcher, failure, capsys, tmp_path, code):
    """Whatever became of one on its way out."""
    failure(0, 75, 'StoppedError: saved.', 0.5, 75)
    failure(1, code, 'StoppedError: saved.', 0.6, 75)
    assert after_sigterm(launcher, capsys, tmp_path, 75, code) == (
        75,
        'SIGTERM has ended the job; what its ranks saved stands above.\n',
    )


def test_a_rank_that_failed_after_the_signal(launcher, failure, capsys, tmp_path):
    failure(0, 75, 'StoppedError: saved.', 0.5, 75)
    failure(1, 6, 'StorageError: no room.', 0.6, 6)
    assert after_sigterm(launcher, capsys, tmp_path, 75, 6) == (
        6,
        'Rank 3 ended the job:\nStorageError: no room.\n',
    )


@pytest.mark.parametrize(
    ('codes', 'code', 'words'),
    [
        ((-15, -15), 143, 'Rank 2 was killed by SIGTERM, which ended the job.\n'),
        ((None, 75), 137, 'Rank 2 was killed by SIGKILL, which ended the job.\n'),
        ((75, 0), 75, 'SIGTERM has ended the job; what its ranks saved stands above.\n'),
        ((0, 0), 0, 'SIGTERM came when the ranks were done.\n'),
    ],
)
def test_ranks_without_words_after_a_signal(launcher, capsys, tmp_path, codes, code, words):
    assert after_sigterm(launcher, capsys, tmp_path, *codes) == (code, words)


def test_a_signal_before_there_are_ranks(launcher, capsys):
    with pytest.raises(SystemExit) as ended:
        launcher.end_after_signal(signal.SIGUSR1, None)
    assert ended.value.code == 138
    assert capsys.readouterr().err == 'SIGUSR1 has ended the job before its ranks were started.\n'
