"""Every config that is shipped: it loads, builds, and trains a step on small data."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny_run import ROOT, equal, run_here, weights_of
from tiny_sam import TINY_ARCH

import mmsam.datasets
import mmsam.engine
import mmsam.evaluation
import mmsam.models
import mmsam.visualization  # noqa: F401
from mmsam import registry
from mmsam.apis import check_config, load_run_config
from mmsam.errors import ConfigError
from tools import train

CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
EACH_CONFIG = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
SAM_CONFIGS = [path for path in CONFIGS if Config.fromfile(path).model.type == 'SAMSegmentor']


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmsam'):
        yield


def bases_of(path: Path) -> list[Path]:
    """The files that a config names in ``_base_``."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            value = ast.literal_eval(node.value)
            return [path.parent / name for name in ([value] if isinstance(value, str) else value)]
    return []


def edges_above(path: Path) -> int:
    """Files on the longest way from a config to a base of a base, itself not counted."""
    return max((1 + edges_above(base) for base in bases_of(path)), default=0)


def test_the_promised_configs_are_there():
    names = {path.stem for path in CONFIGS}
    assert {'sam_stamp', 'sam_stamp_full', 'sam_tiny_stamp', 'sam_tiny_nuclei'} <= names


@EACH_CONFIG
def test_at_most_two_files_to_read_above_it(path):
    assert 1 <= edges_above(path) <= 2


def test_no_config_deletes_what_it_inherits():
    for path in (ROOT / 'configs').rglob('*.py'):
        assert '_delete_' not in path.read_text(), path


@EACH_CONFIG
def test_the_first_line_says_what_it_is_for(path):
    assert path.read_text().startswith('# ')


@EACH_CONFIG
@pytest.mark.trap(17)
def test_it_is_as_a_run_dumps_it(path, tmp_path):
    """What the work dir gets is a config that says the same."""
    config = load_run_config(str(path), None, None)
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == config.to_dict()


@EACH_CONFIG
def test_a_slip_in_it_is_found(path):
    """Also in parts that only this config has: its data set and its model."""
    check_config(Config.fromfile(path))
    for key in ('train_dataloader.dataset.data_rot', 'model.typo', 'val_evaluator.typo'):
        config = Config.fromfile(path)
        config.merge_from_dict({key: 1})
        with pytest.raises(ConfigError, match=f'{key}: '):
            check_config(config)


@EACH_CONFIG
def test_the_model_builds(path):
    config = Config.fromfile(path)
    with torch.device('meta'):
        model = registry.MODELS.build(config.model)
    frozen = tuple(f'{part}.' for part in config.model.get('frozen', ()))
    stages = config.model.get('image_encoder', {}).get('frozen_stages', -1)
    if stages >= 0:
        frozen += ('image_encoder.patch_embed.', 'image_encoder.pos_embed')
        frozen += tuple(f'image_encoder.blocks.{index}.' for index in range(stages))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(frozen)), name


@EACH_CONFIG
def test_hooks_metrics_and_schedules_build(path):
    config = Config.fromfile(path)
    hooks = [*config.default_hooks.values(), *config.custom_hooks]
    assert all(registry.HOOKS.build(hook) for hook in hooks)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            assert registry.METRICS.build(metric)
    assert registry.OPTIM_WRAPPERS.get(config.optim_wrapper.type)
    assert registry.OPTIMIZERS.get(config.optim_wrapper.optimizer.type)
    if 'constructor' in config.optim_wrapper:
        assert registry.OPTIM_WRAPPER_CONSTRUCTORS.get(config.optim_wrapper.constructor)
    for schedule in config.param_scheduler:
        assert registry.PARAM_SCHEDULERS.get(schedule.type)
    for loop in (config.train_cfg, config.val_cfg, config.test_cfg):
        assert registry.LOOPS.get(loop.type)


@EACH_CONFIG
def test_it_is_watched_compared_and_reported(path):
    """``custom_hooks`` of a config replaces the whole list of the runtime."""
    hooks = {hook.type for hook in Config.fromfile(path).custom_hooks}
    assert hooks >= {
        'DivergenceHook', 'GradientCheckHook', 'FrozenCheckHook', 'ZeroShotHook', 'ReportHook',
    }  # fmt: skip


@EACH_CONFIG
def test_its_learning_rates_are_for_its_own_images_an_update(path):
    """So --auto-scale-lr changes nothing in one process, unless the batches are changed."""
    config = Config.fromfile(path)
    images = config.train_dataloader.batch_size * config.optim_wrapper.get('accumulative_counts', 1)
    assert config.auto_scale_lr == dict(base_batch_size=images)


def loaders_of(config: Config) -> dict[str, Any]:
    return {name: config[name] for name in config if name.endswith('_dataloader')}


@EACH_CONFIG
def test_every_transform_builds(path):
    config = Config.fromfile(path)
    assert loaders_of(config).keys() == {'train_dataloader', 'val_dataloader', 'test_dataloader'}
    for loader in loaders_of(config).values():
        assert registry.DATASETS.get(loader.dataset.type)
        assert registry.DATA_SAMPLERS.get(loader.sampler.type)
        assert loader.dataset.pipeline
        for transform in loader.dataset.pipeline:
            assert registry.TRANSFORMS.build(transform)


@EACH_CONFIG
def test_it_says_how_to_get_its_data(path):
    config = Config.fromfile(path)
    assert config.prepare_data
    roots = {loader.dataset.data_root for loader in loaders_of(config).values()}
    assert all(root.startswith('data/') for root in roots)


@EACH_CONFIG
def test_pipelines_and_model_agree_on_the_image_size(path):
    config = Config.fromfile(path)
    if config.model.type != 'SAMSegmentor':
        pytest.skip('mmseg resizes as it likes')
    sizes = {
        transform.image_size
        for loader in loaders_of(config).values()
        for transform in loader.dataset.pipeline
        if 'image_size' in transform
    }
    assert sizes == {config.model.image_encoder.img_size}


def _shrink(config: Any, size: int) -> None:
    """Set every image size in a config to ``size``."""
    children = config.values() if isinstance(config, dict) else config
    for child in children:
        if isinstance(child, dict | list):
            _shrink(child, size)
    if isinstance(config, dict):
        for key in ('image_size', 'img_size'):
            if key in config:
                config[key] = size


@pytest.mark.parametrize('path', SAM_CONFIGS, ids=lambda path: path.stem)
def test_it_trains_a_step(path, data, tmp_path):
    """At 64 px, with a tiny encoder in place of a published one, and no weights."""
    config = Config.fromfile(path)
    _shrink(config._cfg_dict, 64)
    if isinstance(config.model.image_encoder.arch, str):
        config.model.image_encoder.arch = TINY_ARCH
        if 'frozen_stages' in config.model.image_encoder:
            config.model.image_encoder.frozen_stages = 1
    for loader in loaders_of(config).values():
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(data)
    if config.get('embedding_cache') is not None:
        config.embedding_cache.folder = str(tmp_path / 'embeddings')
    config.load_from = None
    config.param_scheduler = []
    config.dump(tmp_path / 'small.py')
    steps = config.optim_wrapper.get('accumulative_counts', 1)
    run_here(
        train, tmp_path / 'small.py', '--no-validate', '--work-dir', tmp_path / 'run',
        '--options', f'train_cfg.max_iters={2 * steps}',
        f'default_hooks.checkpoint.interval={steps}',
    )  # fmt: skip
    first, second = (weights_of(tmp_path / 'run' / f'iter_{n * steps}.pth') for n in (1, 2))
    moved = {key.split('.')[0] for key in first if not torch.equal(first[key], second[key])}
    parts = {'image_encoder', 'prompt_encoder', 'mask_decoder'}
    assert moved == parts - set(config.model.frozen)
    assert not equal(first, second)
