import argparse

import pytest
from tiny_run import write_config

from mmsam.apis import add_training_arguments, load_training_config

STARTS = {
    (): (None, False),
    ('--load-from', 'weights.pth'): ('weights.pth', False),
    ('--resume-from', 'weights.pth'): ('weights.pth', True),
}


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
def test_auto_resume(load, tmp_path, start):
    config = load('--auto-resume', *start)
    assert (config.load_from, config.resume) == STARTS[start]
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'iter_3.pth').touch()
    config = load('--auto-resume', *start)
    assert (config.load_from, config.resume) == (None, True)
    config = load(*start)
    assert (config.load_from, config.resume) == STARTS[start]


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
