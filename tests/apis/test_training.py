import argparse

import pytest
from tiny_run import write_config

from mmsam.apis import add_training_arguments, load_training_config
from mmsam.errors import CheckpointError, ConfigError

STARTS = {
    (): (None, False),
    ('--load-from', 'weights.pth'): ('weights.pth', False),
    ('--resume-from', 'weights.pth'): ('weights.pth', True),
    ('--resume',): (None, True),
    ('--auto-resume', '--load-from', 'weights.pth'): ('weights.pth', False),
}
"""Whatever stands in the work dir: the runner looks there."""


@pytest.fixture
def load(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'weights.pth').touch()
    config = write_config(tmp_path, data)

    def load(*args):
        parser = argparse.ArgumentParser()
        add_training_arguments(parser)
        arguments = [str(config), '--work-dir', str(tmp_path / 'run'), *args]
        return load_training_config(parser.parse_args(arguments))

    return load


@pytest.mark.parametrize('start', STARTS)
def test_the_start(load, tmp_path, start):
    for _ in range(2):
        config = load(*start)
        assert (config.load_from, config.resume) == STARTS[start]
        (tmp_path / 'run').mkdir(exist_ok=True)
        (tmp_path / 'run' / 'iter_3.pth').touch()


@pytest.mark.parametrize('start', ['--load-from', '--resume-from'])
def test_the_file_of_the_start_may_be_gone_when_the_run_goes_on(load, monkeypatch, start):
    """Such as a checkpoint of the same work dir, of which the newest alone are kept."""
    with pytest.raises(CheckpointError, match='gone.pth: no such file'):
        load(start, 'gone.pth')
    assert load(start, 'gone.pth', '--auto-resume').load_from == 'gone.pth'
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert load(start, 'gone.pth').load_from == 'gone.pth'


def test_amp_validates_as_it_trains(load):
    config = load('--amp')
    assert config.val_cfg == dict(type='mmsam.BFloat16ValLoop')
    own = ('--options', 'val_cfg.type=BFloat16ValLoop')
    assert load('--amp', *own).val_cfg == config.val_cfg
    with pytest.raises(ConfigError, match='^--amp: expected ValLoop as val_cfg.type, .* TestLoop'):
        load('--amp', '--options', 'val_cfg.type=TestLoop')


def test_arguments_become_settings(load):
    config = load(
        '--no-validate', '--amp', '--seed', '7', '--deterministic', '--tensorboard',
        '--launcher', 'slurm', '--options', 'train_cfg.max_iters=3',
    )  # fmt: skip
    assert config.val_cfg is config.val_dataloader is config.val_evaluator is None
    assert config.optim_wrapper.type == 'mmsam.BFloat16OptimWrapper'
    assert (config.randomness.seed, config.randomness.deterministic) == (7, True)
    assert config.visualizer.vis_backends[-1] == dict(type='TensorboardVisBackend')
    assert (config.launcher, config.train_cfg.max_iters) == ('slurm', 3)
