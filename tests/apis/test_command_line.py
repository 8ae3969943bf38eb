import argparse
import os

import pytest

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


def test_an_override_without_a_value(capsys):
    with pytest.raises(SystemExit) as end:
        parse('some.py', '--options', 'a=1', 'with_cp')
    assert end.value.code == 2
    assert "--options: expected KEY=VALUE, got 'with_cp'" in capsys.readouterr().err


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
