import pytest
from mmengine.config import Config
from tiny_run import ROOT, refused, run_here

from tools import print_config

TINY = ROOT / 'configs' / 'sam_tiny_stamp.py'


def test_what_it_prints_is_the_config_that_runs(tmp_path, capsys):
    run_here(print_config, TINY, '--options', 'evaluation.interval=7', 'load_from=weights.pth')
    (tmp_path / 'printed.py').write_text(capsys.readouterr().out)
    printed, expected = Config.fromfile(tmp_path / 'printed.py'), Config.fromfile(TINY)
    expected.train_cfg.val_interval = 7
    expected.load_from = 'weights.pth'
    expected.work_dir = 'work_dirs/sam_tiny_stamp'
    expected.experiment_name = printed.experiment_name
    assert printed.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('train_cfg.max_iter=5', 'did you mean max_iters?'),
        ('default_hooks.checkpoint.interval=0', 'got 0'),
    ],
)
def test_it_checks_as_a_run_does(option, words, capsys):
    code, line = refused(capsys, print_config, TINY, '--options', option)
    assert code == 2
    assert line.startswith('ConfigError: ') and words in line


def test_no_such_config(capsys):
    code, line = refused(capsys, print_config, 'no.py')
    assert (code, line) == (2, 'ConfigError: no.py: no such config file.')


def test_static_runs_nothing(tmp_path, capsys):
    path = tmp_path / 'strange.py'
    path.write_text(f'open({str(tmp_path / "ran")!r}, "w")\n')
    run_here(print_config, path, '--static')
    assert f"open('{tmp_path}/ran', 'w') (line 1)" in capsys.readouterr().out
    assert not (tmp_path / 'ran').exists()
    code, _ = refused(capsys, print_config, path, '--options', 'load_from=5')
    assert code == 2 and (tmp_path / 'ran').exists(), 'without --static it does run'
