from pathlib import Path
from typing import Any

import mmseg
import pytest
from mmengine.config import Config, ConfigDict

from mmsam.apis import check_load_from, check_paths, load_run_config
from mmsam.errors import CheckpointError, ConfigError, DataError


def write(folder: Path, text: str) -> str:
    path = folder / 'some_config.py'
    path.write_text(text)
    return str(path)


RUN = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=10, val_interval=5)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='auto'))
"""


@pytest.fixture
def config(tmp_path) -> str:
    return write(tmp_path, RUN)


def test_overrides(config):
    loaded = load_run_config(config, {'train_cfg.max_iters': 3, 'new.deep.key': (1, 2)}, None)
    assert loaded.train_cfg == dict(type='IterBasedTrainLoop', max_iters=3, val_interval=5)
    assert loaded.new.deep.key == (1, 2)


@pytest.mark.parametrize(
    ('own', 'argument', 'expected'),
    [
        ('', None, 'work_dirs/some_config'),
        ("work_dir = 'mine'", None, 'mine'),
        ("work_dir = 'mine'", 'given', 'given'),
        ('work_dir = None', None, 'work_dirs/some_config'),
    ],
)
def test_work_dir(tmp_path, own, argument, expected):
    assert load_run_config(write(tmp_path, RUN + own), None, argument).work_dir == expected


@pytest.mark.parametrize('where', ['config', 'options'])
def test_evaluation(tmp_path, where):
    own = "evaluation = dict(interval=7, save_best='sam/mDice')" if where == 'config' else ''
    options = {'evaluation.interval': 7, 'evaluation.save_best': 'sam/mDice'}
    loaded = load_run_config(
        write(tmp_path, RUN + own), options if where == 'options' else None, None
    )
    assert loaded.train_cfg.val_interval == 7
    assert loaded.default_hooks.checkpoint.save_best == 'sam/mDice'
    assert 'evaluation' not in loaded


def test_options_go_before_the_configs_evaluation(tmp_path):
    path = write(tmp_path, RUN + 'evaluation = dict(interval=7)')
    loaded = load_run_config(path, {'evaluation.interval': 9}, None)
    assert loaded.train_cfg.val_interval == 9


def test_evaluation_changes_only_what_it_names(config):
    loaded = load_run_config(config, {'evaluation.interval': 2}, None)
    assert loaded.default_hooks.checkpoint.save_best == 'auto'
    loaded = load_run_config(config, {'evaluation.save_best': 'x'}, None)
    assert loaded.train_cfg.val_interval == 5


@pytest.mark.parametrize('interval', [0, -1, 2.5, True, '3 0', None])
def test_intervals_that_are_none(config, interval):
    with pytest.raises(ConfigError, match='evaluation.interval: expected a whole number'):
        load_run_config(config, {'evaluation.interval': interval}, None)


@pytest.mark.parametrize('name', ['intervall', 'metric'])
def test_unknown_keys_of_evaluation(config, name):
    with pytest.raises(ConfigError, match=name):
        load_run_config(config, {f'evaluation.{name}': 1}, None)


def test_evaluation_that_is_no_dict(config):
    with pytest.raises(ConfigError, match='evaluation: expected'):
        load_run_config(config, {'evaluation': 5}, None)


def test_no_such_file():
    with pytest.raises(ConfigError, match='no/such.py: no such config file'):
        load_run_config('no/such.py', None, None)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('a = (', 'SyntaxError'),
        ("_base_ = './missing.py'", 'missing.py'),
        ('a = undefined_name', 'undefined_name'),
    ],
)
def test_files_that_cannot_be_read(tmp_path, text, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        load_run_config(write(tmp_path, text), None, None)
    assert 'some_config.py' in str(error.value)


def test_options_that_do_not_fit(config):
    """An entry of a list that the config does not have."""
    with pytest.raises(ConfigError):
        load_run_config(config, {'train_cfg.max_iters.3': 1}, None)


UNET = 'unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py'


def test_mmsegs_packaged_configs_can_be_inherited(tmp_path):
    path = write(tmp_path, f"_base_ = 'mmseg::{UNET}'\nmodel = dict(backbone=dict(with_cp=True))\n")
    loaded = load_run_config(path, None, None)
    packaged = Config.fromfile(Path(mmseg.__file__).parent / '.mim' / 'configs' / UNET)
    assert loaded.model.backbone.pop('with_cp') is True
    packaged.model.backbone.pop('with_cp')
    # mmengine notes where a base comes from
    assert without_scope(loaded.model) == without_scope(packaged.model)
    assert without_scope(loaded.train_dataloader) == without_scope(packaged.train_dataloader)


def without_scope(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: without_scope(v) for key, v in config.items() if key != '_scope_'}
    return [without_scope(v) for v in config] if isinstance(config, list) else config


def loaders(root: str, **others) -> Config:
    return Config(
        dict(train_dataloader=dict(dataset=dict(data_root=root)), val_dataloader=None, **others)
    )


def test_data_that_is_there(tmp_path):
    check_paths(loaders(str(tmp_path)), ('train_dataloader', 'val_dataloader', 'test_dataloader'))


def test_data_that_is_missing(tmp_path):
    missing = str(tmp_path / 'missing')
    with pytest.raises(DataError) as error:
        check_paths(loaders(missing, prepare_data='make it'), ('train_dataloader',))
    expected = f'train_dataloader: the data folder {missing} does not exist: run make it.'
    assert str(error.value) == expected
    with pytest.raises(DataError, match='does not exist.$'):
        check_paths(loaders(missing), ('train_dataloader',))


@pytest.mark.parametrize(
    ('own', 'missing'),
    [
        (dict(ann_file='no.txt'), 'the annotation file {}/no.txt'),
        (dict(reader=dict(type='coco', ann_file='no.json')), 'the annotation file {}/no.json'),
        (dict(reader=dict(type='mask_folder', mask_dir='no')), 'the mask folder {}/no'),
        (dict(reader=dict(type='labelme', ann_dir='no')), 'the annotation folder {}/no'),
        (dict(reader=dict(type='voc', split='no.txt')), 'the split {}/no.txt'),
        (dict(reader=dict(type='voc', names_file='no')), 'the file of class names {}/no'),
        (dict(data_prefix=dict(img='no')), 'the image folder {}/no'),
        (dict(data_prefix=dict(img_path='no')), 'the image folder {}/no'),
        (dict(data_prefix=dict(img_path='/no/such')), 'the image folder /no/such'),
    ],
)
def test_files_of_the_data_that_are_missing(tmp_path, own, missing):
    (tmp_path / 'there').mkdir()
    expected = f'train_dataloader: {missing.format(tmp_path)} does not exist: run make it.'
    dataset = dict(data_root=str(tmp_path), ann_file='there', data_prefix=dict(img='there'))
    for wrap in (lambda inner: inner, lambda inner: dict(type='RepeatDataset', dataset=inner)):
        config = Config(dict(train_dataloader=dict(dataset=wrap(dataset)), prepare_data='make it'))
        check_paths(config, ('train_dataloader',))
        config.train_dataloader.dataset = wrap({**dataset, **own})
        with pytest.raises(DataError) as error:
            check_paths(config, ('train_dataloader',))
        assert str(error.value) == expected


@pytest.mark.parametrize('name', ['train.pkl', 'train.pickle'])
@pytest.mark.bad_input(73)
def test_a_pickle_is_no_annotation_file(tmp_path, name):
    (tmp_path / name).touch()
    for own in (dict(ann_file=name), dict(reader=dict(type='coco', ann_file=name))):
        dataset = dict(data_root=str(tmp_path), **own)
        config = Config(dict(val_dataloader=dict(dataset=dict(dataset=dataset))))
        with pytest.raises(DataError, match=f'val_dataloader: .*{name}: a pickle may run code'):
            check_paths(config, ('val_dataloader',))


def test_load_from_that_is_missing(tmp_path):
    config = loaders(str(tmp_path), load_from=str(tmp_path / 'no.pth'))
    with pytest.raises(CheckpointError) as error:
        check_load_from(config)
    assert str(error.value) == f'load_from {tmp_path}/no.pth: no such file.'
    (tmp_path / 'no.pth').touch()
    check_load_from(config)


def test_what_is_not_local_is_left_alone():
    config = loaders('s3://bucket/data', load_from='https://example.org/weights.pth')
    config.train_dataloader.dataset.ann_file = 'train.txt'
    check_paths(config, ('train_dataloader',))
    check_load_from(config)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'evaluation.interval': 3, 'train_cfg': None}, 'expected a config with train_cfg, got'),
        ({'evaluation.save_best': 'x', 'default_hooks': None}, 'with default_hooks.checkpoint'),
    ],
)
def test_evaluation_of_a_config_without_what_it_changes(config, options, expected):
    with pytest.raises(ConfigError, match=expected):
        load_run_config(config, options, None)


def test_only_the_named_loaders_are_looked_at(tmp_path):
    check_paths(loaders(str(tmp_path / 'missing')), ('val_dataloader',))


def test_data_sets_without_a_root_pass():
    config = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset'))))
    check_paths(config, ('train_dataloader',))
    assert isinstance(config.train_dataloader, ConfigDict)
