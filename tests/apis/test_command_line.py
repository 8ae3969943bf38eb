import argparse
import atexit
import ctypes
import os
import signal
import sys
import time

import pytest
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mmsam.apis import add_common_arguments, run_tool
from mmsam.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    LaunchError,
    MMSAMError,
)


def parse(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    return parser.parse_args(args)


def test_defaults():
    args = parse('some.py')
    assert vars(args) == dict(
        config='some.py', work_dir=None, cfg_options=None, launcher='none', local_rank=None,
        debug=False,
    )  # fmt: skip


@pytest.mark.parametrize('name', ['--options', '--cfg-options'])
def test_overrides_have_their_types(name):
    args = parse('some.py', name, 'a=1', 'b.c=0.5', 'd=True', 'e=x', 'f=[1,2]', 'g=(3,4)', 'h=5,6')
    assert args.cfg_options == {
        'a': 1, 'b.c': 0.5, 'd': True, 'e': 'x', 'f': [1, 2], 'g': (3, 4), 'h': [5, 6],
    }  # fmt: skip


def test_both_names_add_up():
    args = parse('some.py', '--options', 'a=1', 'b=2', '--cfg-options', 'b=3', '--options', 'c=4')
    assert args.cfg_options == {'a': 1, 'b': 3, 'c': 4}


def test_a_value_may_hold_an_equals_sign():
    assert parse('some.py', '--options', 'url=a?b=c').cfg_options == {'url': 'a?b=c'}


@pytest.mark.parametrize(
    ('pair', 'problem'),
    [
        ('with_cp', ": expected KEY=VALUE, got 'with_cp'"),
        ('a.b', ": expected KEY=VALUE, got 'a.b'"),
        ('=5', ": expected KEY=VALUE, got '=5'"),
        ('key=[1,2', ' key: expected balanced brackets, got [1,2'),
        ('key=[1', ' key: expected balanced brackets, got [1'),
        ('key=1,2]', ' key: expected balanced brackets, got 1,2]'),
        ('key=[(1,2],3)', ' key: expected balanced brackets, got [(1,2],3)'),
        ('x.lr=1e400', ' x.lr: expected finite numbers, got 1e400'),
        ('x.lr=[1,(-inf,2)]', ' x.lr: expected finite numbers, got [1,(-inf,2)]'),
        ('x.lr=nan', ' x.lr: expected finite numbers, got nan'),
    ],
)
@pytest.mark.parametrize('name', ['--options', '--cfg-options'])
@pytest.mark.bad_input(68)
def test_overrides_that_are_none(name, pair, problem, capsys):
    with pytest.raises(SystemExit) as end:
        parse('some.py', name, 'a=1', pair)
    assert end.value.code == 2
    assert capsys.readouterr().err == f'ConfigError: {name}{problem}.\n'


@pytest.mark.parametrize('text', ['run(1', 'a]b', '', 'x:)'])
def test_a_text_may_hold_any_bracket(text):
    assert parse('some.py', '--options', f'name={text}').cfg_options == {'name': text}


def test_an_unknown_launcher():
    with pytest.raises(SystemExit) as end:
        parse('some.py', '--launcher', 'ray')
    assert end.value.code == 2


@pytest.mark.parametrize('name', ['--local_rank', '--local-rank'])
def test_the_rank_of_old_launchers_is_handed_on(name, monkeypatch):
    monkeypatch.setattr(os, 'environ', {})
    run_tool(lambda args: None, parse('some.py', f'{name}=3'))
    assert os.environ == {'LOCAL_RANK': '3'}


def test_the_rank_of_torchrun_goes_first(monkeypatch):
    monkeypatch.setattr(os, 'environ', {'LOCAL_RANK': '1'})
    run_tool(lambda args: None, parse('some.py', '--local_rank', '3'))
    assert os.environ == {'LOCAL_RANK': '1'}


@pytest.mark.parametrize(
    ('error', 'code'),
    [(MMSAMError, 1), (ConfigError, 2), (DataError, 3), (CheckpointError, 4), (LaunchError, 5)],
)
@pytest.mark.parametrize('debug', [False, True])
def test_known_errors_are_one_line_and_a_code(error, code, debug, capsys):
    def main(args: argparse.Namespace) -> None:
        raise error('Expected this, got that.')

    with pytest.raises(SystemExit) as end:
        run_tool(main, parse('some.py', *(['--debug'] if debug else [])))
    assert end.value.code == code
    printed = capsys.readouterr()
    assert printed.out == ''
    lines = printed.err.splitlines()
    assert lines[-1] == f'{error.__name__}: Expected this, got that.'
    assert ('Traceback' in printed.err) == debug
    assert debug or len(lines) == 1


def test_other_errors_keep_their_traceback():
    def main(args: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tool(main, parse('some.py'))


# ------------------------------------------------------------------------------- under torchrun


def fail_with(error: Exception):
    def main(args: argparse.Namespace) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ('error', 'expected_end', 'first', 'last'),
    [
        (DataError('A, got b.'), SystemExit, 'DataError: A, got b.', 'DataError: A, got b.'),
        (KeyError('b'), KeyError, 'Traceback (most recent call last):', "KeyError: 'b'"),
    ],
)
def test_torchrun_can_read_the_error(error, expected_end, first, last, monkeypatch, tmp_path):
    path = tmp_path / 'error.json'
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(path))
    before = time.time()
    with pytest.raises(expected_end):
        run_tool(fail_with(error), parse('some.py'))
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(path))
    lines = failure.message['message'].strip().splitlines()
    assert (lines[0], lines[-1]) == (first, last)
    assert before <= failure.message['extraInfo']['time'] <= time.time()
    assert int(before) <= failure.timestamp <= time.time()


class Ended(BaseException):
    """Stands in for the end of the process."""


@pytest.fixture
def ends(monkeypatch):
    """What a run of an existing process group does at its end, in order."""
    done: list[object] = []

    def end(code: int) -> None:
        done.append(code)
        raise Ended

    monkeypatch.setattr(dist, 'is_initialized', lambda: 'created' in done)
    monkeypatch.setattr(dist, 'destroy_process_group', lambda: done.append('destroyed'))
    monkeypatch.setattr(atexit, '_run_exitfuncs', lambda: done.append('exit functions'))
    monkeypatch.setattr(os, '_exit', end)
    return done


@pytest.mark.parametrize('launcher', ['none', 'slurm'])
def test_a_distributed_run_ends_its_process(ends, launcher):
    with pytest.raises(Ended):
        run_tool(lambda args: ends.append('created'), parse('some.py', '--launcher', launcher))
    assert ends == ['created', 'destroyed', 'exit functions', 0]


def test_a_process_of_a_launcher_ends_so_before_it_has_joined_too(ends):
    with pytest.raises(Ended):
        run_tool(fail_with(DataError('A, got b.')), parse('some.py', '--launcher', 'slurm'))
    assert ends == ['exit functions', 3]


@pytest.mark.parametrize(
    ('error', 'code', 'last'),
    [(DataError('A, got b.'), 3, 'DataError: A, got b.'), (KeyError('b'), 1, "KeyError: 'b'")],
)
def test_a_failed_distributed_run_waits_for_nobody(ends, error, code, last, capsys):
    def main(args: argparse.Namespace) -> None:
        ends.append('created')
        raise error

    with pytest.raises(Ended):
        run_tool(main, parse('some.py'))
    assert ends == ['created', 'exit functions', code]
    assert capsys.readouterr().err.splitlines()[-1] == last


class Libc:
    """Stands in for the C library: notes calls of prctl."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def prctl(self, option: int, value: int) -> int:
        self.calls.append((option, value))
        return 0


@pytest.fixture
def libc(monkeypatch):
    library = Libc()
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: library)
    return library


linux = pytest.mark.skipif(sys.platform != 'linux', reason='prctl is of Linux')


@linux
@pytest.mark.parametrize('through_our_script', [True, False])
def test_a_process_of_torchrun_dies_with_it(libc, ends, through_our_script, monkeypatch):
    monkeypatch.delenv('MMSAM_LAUNCHER_PID', raising=False)
    if through_our_script:
        monkeypatch.setenv('MMSAM_LAUNCHER_PID', str(os.getppid()))
    seen = []
    with pytest.raises(Ended):
        run_tool(seen.append, parse('some.py', '--launcher', 'pytorch'))
    assert libc.calls == [(1, signal.SIGKILL)]  # 1 is PR_SET_PDEATHSIG in <linux/prctl.h>
    assert len(seen) == 1


@linux
def test_a_process_whose_launcher_is_dead_does_not_start(libc, ends, monkeypatch, capsys):
    monkeypatch.setenv('MMSAM_LAUNCHER_PID', str(os.getpid()))  # anything but the parent
    with pytest.raises(Ended):
        run_tool(lambda args: pytest.fail('it ran'), parse('some.py', '--launcher', 'pytorch'))
    assert ends == ['exit functions', 5]
    assert capsys.readouterr().err.startswith('LaunchError: ')


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_other_launchers_keep_their_ways(libc, ends, launcher, monkeypatch):
    monkeypatch.setenv('MMSAM_LAUNCHER_PID', str(os.getpid()))
    with pytest.raises(Ended):
        run_tool(lambda args: None, parse('some.py', '--launcher', launcher))
    assert libc.calls == []
