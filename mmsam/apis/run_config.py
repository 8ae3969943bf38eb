"""From a config file and the command line's overrides to the config of a run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmsam.errors import CheckpointError, ConfigError, DataError

from .config_check import check_config, check_option_paths, datasets_of, nearest, value_at
from .embedding_cache_check import check_embedding_cache
from .plain_yaml import read_yaml_as_data

# the fork of mmseg goes by another distribution name; without this `_base_ = 'mmseg::...'` fails
MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'

read_yaml_as_data()

_PICKLES = ('.pkl', '.pickle')


def load_run_config(path: str, cfg_options: dict[str, Any] | None, work_dir: str | None) -> Config:
    """Read a config, apply overrides, fill in the work dir and the classic ``evaluation``; check.

    Args:
        path: config file.
        cfg_options: overrides from ``--options``, dotted keys.
        work_dir: from ``--work-dir``; else the config's, else ``work_dirs/<config name>``.

    Raises:
        ConfigError: no such file, it cannot be read, or something in it is wrong, see
            ``check_config`` and ``check_embedding_cache``.
    """
    if not Path(path).is_file():
        raise ConfigError(f'{path}: no such config file.')
    try:
        config = Config.fromfile(path)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error
    except Exception as error:  # a config is code: it may raise anything
        reason = ' '.join(str(error).split())
        raise ConfigError(f'{path}: {type(error).__name__}: {reason}') from error
    if cfg_options:
        check_option_paths(config, cfg_options)
        try:
            config.merge_from_dict(cfg_options)
        except (KeyError, TypeError) as error:
            raise ConfigError(f'--options: {error.args[0]}') from error
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(path).stem)
    _apply_evaluation(config)
    check_config(config)
    check_embedding_cache(config)
    return config


def check_paths(config: Config, loaders: tuple[str, ...]) -> None:
    """Check that the data of the loaders exist, as far as they are local.

    Args:
        config: as it will run; its ``prepare_data`` says which command makes the data.
        loaders: keys of the data loaders that will be used.

    Raises:
        DataError: a ``data_root``, an ``ann_file`` or a folder of images is missing, or an
            ``ann_file`` is a pickle, which may run code when it is read.
    """
    hint = config.get('prepare_data')
    advice = f': run {hint}' if hint else ''
    for name in loaders:
        loader = config.get(name)
        for dataset in datasets_of(loader.get('dataset') if loader else None):
            root = dataset.get('data_root')
            if root and not _exists(root):
                raise DataError(f'{name}: the data folder {root} does not exist{advice}.')
            for what, path in _files_of(dataset):
                if path.endswith(_PICKLES):
                    raise DataError(
                        f'{name}: expected a {what} of plain data, got {path}: a pickle may run '
                        'code when it is read; convert it to JSON.'
                    )
                if not _exists(path):
                    raise DataError(f'{name}: the {what} {path} does not exist{advice}.')


def check_load_from(config: Config) -> None:
    """Check that the file which the config starts from exists, if it is local.

    Raises:
        CheckpointError: it does not.
    """
    weights = config.get('load_from')
    if weights and not _exists(weights):
        raise CheckpointError(f'load_from {weights}: no such file.')


def use_bfloat16_loop(config: Config, key: str) -> None:
    """Set the loop of validation or test to the one in bfloat16 mixed precision.

    Args:
        config: checked, as it will run.
        key: ``val_cfg`` or ``test_cfg``.

    Raises:
        ConfigError: the config has a loop of another kind.
    """
    name = {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}[key]
    given = config[key].get('type', name)
    if given not in (name, f'mmengine.{name}', f'BFloat16{name}', f'mmsam.BFloat16{name}'):
        raise ConfigError(
            f'--amp: expected {name} as {key}.type, in whose place it puts BFloat16{name}, '
            f'got {given}.'
        )
    config[key] = dict(type=f'mmsam.BFloat16{name}')


def _exists(path: str) -> bool:
    """Whether a path exists; that of a URL is found out when it is opened."""
    return '://' in path or Path(path).exists()


def _files_of(dataset: dict) -> Iterator[tuple[str, str]]:
    """What a data set reads, each with its path; only what every known data set needs."""
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or {}
    reader = dataset.get('reader') or {}
    for what, name in (
        ('annotation file', dataset.get('ann_file')),
        ('annotation file', reader.get('ann_file')),
        ('annotation folder', reader.get('ann_dir')),
        ('mask folder', reader.get('mask_dir')),
        ('split', reader.get('split')),
        ('file of class names', reader.get('names_file')),
        ('image folder', prefix.get('img')),
        ('image folder', prefix.get('img_path')),
    ):
        if isinstance(name, str) and name:
            yield what, name if '://' in name else os.path.join(root, name)


def _apply_evaluation(config: Config) -> None:
    """Translate ``evaluation = dict(interval=N, save_best=KEY)`` to mmengine's settings."""
    evaluation = config.pop('evaluation', None)
    if evaluation is None:
        return
    if not isinstance(evaluation, dict):
        raise ConfigError(f'evaluation: expected dict(interval=...), got {evaluation!r}.')
    for key in evaluation:
        if key not in ('interval', 'save_best'):
            near = nearest(key, ('interval', 'save_best'))
            hint = f'did you mean {near}?' if near else 'metrics belong to val_evaluator.'
            raise ConfigError(f'evaluation: expected interval and save_best, got {key}; {hint}')
    for key, target in (('interval', 'train_cfg'), ('save_best', 'default_hooks.checkpoint')):
        if key in evaluation and not isinstance(value_at(config, target), dict):
            raise ConfigError(
                f'evaluation.{key}: expected a config with {target}, '
                f'got {value_at(config, target)!r}.'
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
