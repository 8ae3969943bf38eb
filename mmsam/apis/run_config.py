"""From a config file and the command line's overrides to the config of a run."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmsam.errors import ConfigError, DataError

# the fork of mmseg goes by another distribution name; without this `_base_ = 'mmseg::...'` fails
MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'


def load_run_config(path: str, cfg_options: dict[str, Any] | None, work_dir: str | None) -> Config:
    """Read a config, apply overrides, fill in the work dir and the classic ``evaluation``.

    Args:
        path: config file.
        cfg_options: overrides from ``--options``, dotted keys.
        work_dir: from ``--work-dir``; else the config's, else ``work_dirs/<config name>``.

    Raises:
        ConfigError: no such file, it cannot be read, or ``evaluation`` is wrong.
    """
    if not Path(path).is_file():
        raise ConfigError(f'{path}: no such config file.')
    try:
        config = Config.fromfile(path)
        if cfg_options:
            config.merge_from_dict(cfg_options)
    except Exception as error:  # a config is code: it may raise anything
        raise ConfigError(f'{path}: {type(error).__name__}: {error}') from error
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(path).stem)
    _apply_evaluation(config)
    return config


def check_paths(config: Config, loaders: tuple[str, ...]) -> None:
    """Raise DataError where a data loader's ``data_root`` does not exist.

    The config's ``prepare_data`` says which command makes the data.
    """
    for name in loaders:
        loader = config.get(name)
        root = loader and loader.dataset.get('data_root')
        if root and not Path(root).exists():
            hint = config.get('prepare_data')
            advice = f': run {hint}' if hint else ''
            raise DataError(f'{name}: the data folder {root} does not exist{advice}.')


def _apply_evaluation(config: Config) -> None:
    """Translate ``evaluation = dict(interval=N, save_best=KEY)`` to mmengine's settings."""
    evaluation = config.pop('evaluation', None)
    if evaluation is None:
        return
    if not isinstance(evaluation, dict):
        raise ConfigError(f'evaluation: expected dict(interval=...), got {evaluation!r}.')
    unknown = set(evaluation) - {'interval', 'save_best'}
    if unknown:
        raise ConfigError(
            f'evaluation: expected interval and save_best, got {sorted(unknown)}; metrics belong '
            'to val_evaluator.'
        )
    if 'interval' in evaluation:
        interval = evaluation['interval']
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise ConfigError(
                f'evaluation.interval: expected a whole number of at least 1, got {interval!r}; '
                'use --no-validate to train without validation.'
            )
        config.train_cfg.val_interval = interval
    if 'save_best' in evaluation:
        config.default_hooks.checkpoint.save_best = evaluation['save_best']
