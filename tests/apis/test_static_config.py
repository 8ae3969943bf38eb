import pytest
from tiny_run import ROOT

from mmsam.apis import describe_config
from mmsam.errors import ConfigError

STRANGE = """'''Harmless.'''
_base_ = ['base.py', 'gone.py', 'mmseg::some.py']
import os
from subprocess import run as train
custom_imports = dict(imports=['their.package'])
lr = 1e-3
model = dict(type='SAM', parts=[dict(depth=2), tuple([1])], hidden=os.system('touch ran'))
data: dict = {'root': eval('open')('ran', 'w')}
model['x'] = [open('ran', 'w') for _ in (1,)]
def work():
    train('touch ran')
work()
for _ in range(3):
    lr += 1
"""


@pytest.mark.bad_input(73)
def test_everything_is_listed_and_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'strange.py').write_text(STRANGE)
    (tmp_path / 'base.py').write_text("_base_ = 'strange.py'\nopen('ran', 'w')\nlr = 2\n")
    lines = describe_config('strange.py').splitlines()
    assert not (tmp_path / 'ran').exists()
    assert lines == [
        'strange.py',
        '  imports: import os (line 3)',
        '  imports: from subprocess import run as train (line 4)',
        "  imports: custom_imports = dict(imports=['their.package']) (line 5)",
        "  calls: os.system('touch ran') (line 7)",
        "  calls: eval('open')('ran', 'w') (line 8)",
        "  calls: eval('open') (line 8)",
        "  calls: open('ran', 'w') (line 9)",
        "  calls: train('touch ran') (line 11)",
        '  calls: work() (line 12)',
        '  calls: range(3) (line 13)',
        '  other statements: def work(): (line 10)',
        '  other statements: for _ in range(3): (line 13)',
        "  sets: _base_ = ['base.py', 'gone.py', 'mmseg::some.py']",
        "  sets: custom_imports = dict(imports=['their.package'])",
        '  sets: lr = 0.001',
        "  sets: model = dict(type='SAM', parts=[dict(depth=2), tuple([1])], "
        "hidden=os.system('touch ran'))",
        "  sets: data = {'root': eval('open')('ran', 'w')}",
        "  sets: model['x'] = [open('ran', 'w') for _ in (1,)]",
        'base.py',
        "  calls: open('ran', 'w') (line 2)",
        "  sets: _base_ = 'strange.py'",
        '  sets: lr = 2',
        'gone.py',
        '  not looked at: expected a .py file beside strange.py',
        'mmseg::some.py',
        '  not looked at: expected a .py file beside strange.py',
    ]


@pytest.mark.parametrize(
    'trick',
    [
        'if True:\n    dict = eval',
        'from os import system as dict',
        'from their import *',
        'def dict(x): pass',
        'for dict in [eval]: pass',
        'try: pass\nexcept X as dict: pass',
        'y = (dict := eval)',
    ],
)
def test_a_name_of_a_container_may_mean_something_else(tmp_path, trick):
    (tmp_path / 'a.py').write_text(f'{trick}\nx = dict(y)\n')
    assert '  calls: dict(y) (line ' in describe_config(str(tmp_path / 'a.py'))


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda p: p.stem)
def test_the_shipped_configs_import_and_call_nothing(path):
    text = describe_config(str(path))
    titles = {line.partition(':')[0] for line in text.splitlines() if line.startswith('  ')}
    assert titles <= {'  sets', '  not looked at'}
    assert 'model = ' in text


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('a.yaml', b'a: 1', 'expected a .py config'),
        ('a.py', b'a = (', 'a.py is no Python'),
        ('a.py', b'a = \0', 'a.py is no Python'),
        ('a.py', b'a = ' + b'(' * 5000, 'a.py is no Python'),
        ('a.py', b'# coding: none', 'a.py is no Python'),
    ],
)
def test_what_is_no_config(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        describe_config(str(tmp_path / name))
    with pytest.raises(ConfigError, match='no.py cannot be read: No such file'):
        describe_config(str(tmp_path / 'no.py'))
