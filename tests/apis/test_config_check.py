"""What a config may not say, and what is said about it; each in one sentence."""

import re
from pathlib import Path
from typing import Any

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_run import ROOT

from mmsam.apis import check_config, load_run_config
from mmsam.errors import ConfigError
from mmsam.models import SAMBackbone

TINY = ROOT / 'configs' / 'sam_tiny_stamp.py'
FCN = ROOT / 'configs' / 'mmseg_fcn_sam_stamp.py'


def message(path: Path, options: dict[str, Any] | None = None) -> str:
    """What ``load_run_config`` says, which must be one sentence."""
    with pytest.raises(ConfigError) as error:
        load_run_config(str(path), options, None)
    text = str(error.value)
    assert '\n' not in text and re.search(r'[.?]$', text), text
    return text


def child(folder: Path, text: str, base: Path = TINY) -> Path:
    """A config that changes a shipped one."""
    path = folder / 'child.py'
    path.write_text(f'_base_ = {str(base)!r}\n{text}\n')
    return path


WRONG_OPTIONS = [
    # keys
    ('train_cfg.max_iter', 50, 'train_cfg.max_iter: ', 'did you mean max_iters?'),
    ('trian_cfg.max_iters', 50, '--options trian_cfg.max_iters: ', 'did you mean train_cfg?'),
    ('modle.type', 'X', '--options modle.type: ', 'did you mean model?'),
    ('model.image_encodr.with_cp', True, 'model.image_encodr: ', 'did you mean image_encoder?'),
    ('model.image_encoder.with_pc', True, 'SAMImageEncoder has no option with_pc', 'with_cp?'),
    ('model.image_encoder.arch.embed_dims', 8, 'arch.embed_dims: ', 'arch.embed_dim?'),
    ('optim_wrapper.optimizer.lrr', 1, 'optimizer.lrr: AdamW has no option', 'did you mean lr?'),
    ('optim_wrapper.clip_gard', None, 'optim_wrapper.clip_gard: ', 'did you mean clip_grad?'),
    ('default_hooks.checkpiont.interval', 5, 'no such key', 'default_hooks.checkpoint?'),
    ('default_hooks.checkpoint.intervall', 5, 'CheckpointHook has no option int', 'interval?'),
    ('default_hooks.logger.intervl', 5, 'LoggerHook has no option intervl', 'interval?'),
    ('param_scheduler.0.start_facter', 1.0, 'LinearLR has no option', 'start_factor?'),
    ('train_dataloader.batchsize', 2, 'no such key', 'train_dataloader.batch_size?'),
    ('train_dataloader.dataset.data_rot', 'x', 'BoxPromptDataset has no', 'data_root?'),
    ('train_dataloader.dataset.pipeline.1.max_object', 2, 'RandomObjects has no', 'max_objects?'),
    ('train_dataloader.dataset.pipeline.9.prob', 1, 'one of the 8 entries', 'got'),
    ('train_dataloader.dataset.reader.ann_fiel', 'x', 'dataset.reader: ', "'ann_file'?"),
    ('train_dataloader.dataset.reader.type', 'cocoo', 'dataset.reader: ', "'coco'?"),
    ('train_dataloader.dataset.reader', 'coco', 'dataset.reader: ', "must be a dict, such as"),
    ('train_dataloader.dataset.split', dict(part='train'), 'dataset.split: ', "'ratios'"),
    ('train_dataloader.dataset.splt', None, 'BoxPromptDataset has no', 'did you mean split?'),
    ('val_evaluator.prefx', 'x', 'val_evaluator.prefx: PromptedMaskMetric has no', ''),
    ('randomness.sed', 1, 'randomness.sed: ', 'seed?'),
    ('env_cfg.mp_cfg.opencv_threads', 1, 'env_cfg.mp_cfg.opencv_threads: ', 'opencv_num_threads?'),
    ('log_processor.by_epochs', True, 'no such key', 'log_processor.by_epoch?'),
    ('evaluation.intervall', 3, 'evaluation: ', 'did you mean interval?'),
    ('train_cfg.max_iters.3', 1, 'expected a dict or list in train_cfg.max_iters', 'got 800'),
    ('auto_scale_lr.base_batch_sise', 8, 'auto_scale_lr.base_batch_sise: ', 'base_batch_size?'),
    ('auto_scale_lr.base_batch_size', 0, 'base_batch_size: expected a whole number', 'got 0'),
    ('auto_scale_lr', 8, 'auto_scale_lr: expected dict(base_batch_size=N)', 'got 8'),
    # names
    ('model.type', 'SAMSegmenter', "model.type: no model is called 'SAM", 'SAMSegmentor?'),
    ('model.mask_decoder.type', 'samMaskdecoder', 'no model is called', 'SAMMaskDecoder?'),
    ('model.mask_decoder.type', 5, 'model.mask_decoder.type: expected a name', 'got 5'),
    ('model.mask_decoder.type', 'nosuch.Thing', "called 'nosuch.Thing'", 'custom_imports'),
    ('optim_wrapper.type', 'OptimWraper', 'no optim_wrapper is called', 'OptimWrapper?'),
    ('optim_wrapper.optimizer.type', 'AdmW', 'no optimizer is called', 'AdamW?'),
    ('optim_wrapper.constructor', 'TrainableParamConstructor', 'constructor', 'TrainableParams'),
    ('param_scheduler.1.type', 'CosineAnealingLR', 'parameter scheduler', 'CosineAnnealingLR?'),
    ('train_dataloader.sampler.type', 'SeededSampler', 'sampler.type', 'SeededInfiniteSampler?'),
    ('train_dataloader.dataset.type', 'BoxPromtDataset', 'no dataset is', 'BoxPromptDataset?'),
    ('train_dataloader.dataset.pipeline.5.type', 'RandomPromptFlip', 'pipeline.5', 'Prompted'),
    ('val_evaluator.type', 'PromptedMaskMetrics', 'no metric is called', 'PromptedMaskMetric?'),
    ('train_cfg.type', 'IterBasedTrainLop', 'no loop is called', 'IterBasedTrainLoop?'),
    ('visualizer.vis_backends.0.type', 'LocalBackend', 'vis_backends.0', 'LocalVisBackend?'),
    ('default_scope', 'mmsma', 'default_scope: ', 'did you mean mmsam?'),
    ('default_scope', 'mmengine', "not found in the scope 'mmengine'", "default_scope='mmsam'"),
    # values
    ('train_cfg.max_iters', '50', 'train_cfg.max_iters: expected a whole', "at least 1, got '50'"),
    ('train_cfg.max_iters', 0, 'train_cfg.max_iters: ', 'at least 1, got 0'),
    ('train_cfg.val_interval', 0, 'train_cfg.val_interval: ', 'at least 1, got 0'),
    ('train_cfg.val_interval', -1, 'train_cfg.val_interval: ', 'at least 1, got -1'),
    ('evaluation.interval', 0, 'evaluation.interval: ', 'got 0; use --no-validate'),
    ('default_hooks.checkpoint.interval', 0, 'checkpoint.interval: ', 'or -1 for never, got 0'),
    ('default_hooks.checkpoint.interval', -2, 'checkpoint.interval: ', 'got -2'),
    ('default_hooks.logger.interval', 0, 'default_hooks.logger.interval: ', 'got 0'),
    ('default_hooks.logger.interval', 2.5, 'default_hooks.logger.interval: ', 'got 2.5'),
    ('optim_wrapper.optimizer.lr', '1e-3', 'optim_wrapper.optimizer.lr: ', "got '1e-3'"),
    ('optim_wrapper.optimizer.lr', float('inf'), 'optimizer.lr: expected a finite', 'got inf'),
    ('optim_wrapper.optimizer.lr', float('nan'), 'optimizer.lr: expected a finite', 'got nan'),
    ('optim_wrapper.optimizer.lr', -0.1, 'optim_wrapper.optimizer.lr: ', 'got -0.1'),
    ('optim_wrapper.accumulative_counts', 0, 'accumulative_counts: ', 'got 0'),
    ('train_dataloader.batch_size', 0, 'train_dataloader.batch_size: ', 'at least 1, got 0'),
    ('val_dataloader.num_workers', -1, 'val_dataloader.num_workers: ', 'at least 0, got -1'),
    ('train_dataloader.persistent_workers', True, 'persistent_workers: ', 'num_workers is 0'),
    ('randomness.seed', 'one', 'randomness.seed: ', "got 'one'"),
    ('load_from', 5, 'load_from: expected a path as text', 'got 5'),
    ('work_dir', 5, 'work_dir: expected a path as text', 'got 5'),
    # kinds of values, as our constructors annotate them
    ('train_dataloader.dataset.pipeline.1.max_objects', '2', 'a whole number', "got '2'"),
    ('train_dataloader.dataset.pipeline.1.max_objects', 2.5, 'a whole number', 'got 2.5'),
    ('train_dataloader.dataset.pipeline.1.max_objects', True, 'a whole number', 'got True'),
    ('train_dataloader.dataset.pipeline.2.image_size', None, 'a whole number', 'got None'),
    ('train_dataloader.dataset.pipeline.5.prob', True, 'expected a number', 'got True'),
    ('train_dataloader.dataset.pipeline.5.prob', [0.5], 'expected a number', 'got [0.5]'),
    ('train_dataloader.dataset.pipeline.5.direction', 1, 'direction: expected text,', 'got 1'),
    ('train_dataloader.dataset.pipeline.6.ratio', '0.1', '6.ratio: expected a number', "'0.1'"),
    ('train_dataloader.dataset.prompt_boxes', 5, 'prompt_boxes: expected text or None', 'got 5'),
    ('train_dataloader.sampler.seed', '1', 'sampler.seed: expected a whole number or None', "'1'"),
    ('model.image_encoder.with_cp', 'False', 'with_cp: expected True or False', "got 'False'"),
    ('model.image_encoder.with_cp', 0.5, 'with_cp: expected True or False', 'got 0.5'),
    ('model.image_encoder.with_cp', 'globl', "True or False or 'global'", "got 'globl'"),
    ('model', 5, 'model: expected a dict', 'got 5'),
    # loops
    ('train_cfg.max_epochs', 3, 'max_iters (IterBasedTrainLoop) or max_epochs', 'got both'),
    ('train_cfg.type', 'EpochBasedTrainLoop', 'EpochBasedTrainLoop runs for max_epochs', ''),
    ('train_cfg.by_epoch', True, 'train_cfg: expected type or by_epoch', 'got both'),
]  # fmt: skip


@pytest.mark.parametrize(
    ('key', 'value', 'first', 'second'), WRONG_OPTIONS, ids=lambda value: str(value)[:40]
)
@pytest.mark.bad_input(67, 69, 70, 71)
def test_wrong_options(key, value, first, second):
    text = message(TINY, {key: value})
    assert first in text and second in text


@pytest.mark.parametrize(
    ('text', 'first', 'second'),
    [
        ('train_dataloder = dict(batch_size=2)', 'train_dataloder: ', 'train_dataloader?'),
        ('custom_hook = []', 'custom_hook: ', 'custom_hooks?'),
        ('train_dataloader = dict(batchsize=2)', 'has no option batchsize', 'batch_size?'),
        ('log_processor = dict(by_epochs=True)', 'LogProcessor has no option', 'by_epoch?'),
        ('env_cfg = dict(cudnn_bench=True)', 'env_cfg.cudnn_bench: ', 'cudnn_benchmark?'),
        ("optim_wrapper = dict(optimzer=dict(type='SGD'))", 'optim_wrapper.optimzer', 'optimizer?'),
        ("model = dict(_delete_=True, tpye='SAMSegmentor')", 'model: expected a key type', 'tpye'),
        (
            "default_hooks = dict(checkpoint=dict(type='CheckpointHook', intervall=5))",
            'CheckpointHook has no option intervall',
            'interval?',
        ),
        ('custom_hooks = [dict()]', 'custom_hooks.0: expected a key type', 'got none'),
        ("load_form = 'a.pth'", 'load_form: ', 'load_from?'),
        (
            "custom_hooks = [dict(type='ZeroShotHook', max_pictures=5)]",
            'ZeroShotHook has no option',
            'options are: priority.',
        ),
        (
            "custom_hooks = [dict(type='MaskLossHook', loss=dict(type='SAMMaskLoss', resolutn=1))]",
            'custom_hooks.0.loss.resolutn',
            'resolution?',
        ),
        (
            "custom_hooks = [dict(type='MaskLossHook', loss=dict(type='SAMMaskLos'))]",
            "custom_hooks.0.loss.type: nothing is called 'SAMMaskLos'",
            'SAMMaskLoss?',
        ),
        (
            "custom_hooks = [dict(type='MaskLossHook', "
            "loss=dict(type='SAMMaskLoss', dice_weight='1'))]",
            'custom_hooks.0.loss.dice_weight: expected a number',
            "got '1'",
        ),
        (
            "custom_hooks = [dict(type='SAMEarlyStoppingHook', monitor='sam/mIoU', patience='5')]",
            'custom_hooks.0.patience: expected a whole number',
            "got '5'",
        ),
        ("custom_hooks = [dict(type='ZeroShtHook')]", 'no hook is called', 'ZeroShotHook?'),
        ("custom_hooks = [dict(type='mmsam.MaskLosHook')]", 'no hook is called', 'MaskLossHook?'),
        ("custom_hooks = [dict(tpye='ZeroShotHook')]", 'custom_hooks.0: expected a key', 'tpye'),
        ('default_hooks = dict(chekpoint=dict(interval=5))', 'default_hooks.chekpoint: ', 'type'),
        ("model = dict(frozn=('image_encoder',))", 'SAMSegmentor has no option', 'frozen?'),
        ('train_cfg = dict(_delete_=True, max_iters=5)', 'train_cfg: ', 'by_epoch, got neither'),
        (
            'train_cfg = dict(_delete_=True, by_epoch=True, max_iters=5)',
            'EpochBasedTrainLoop runs for max_epochs',
            'not for max_iters',
        ),
        (
            "optim_wrapper = dict(paramwise_cfg={}, optimizer=dict(type='SGD', beta=1))",
            'optim_wrapper.optimizer.beta',
            'SGD has no option beta',
        ),
        (
            "custom_hooks = [dict(type='EMAHook'), dict(type='EMAHok')]",
            'custom_hooks.1.type',
            'EMAHook?',
        ),
        # loops that would not end
        (
            "val_dataloader = dict(sampler=dict(type='SeededInfiniteSampler'))",
            'val_dataloader.sampler.type: expected a sampler with an end, such as DefaultSampler',
            'got SeededInfiniteSampler: the evaluation would never end',
        ),
        (
            "test_dataloader = dict(sampler=dict(type='mmengine.InfiniteSampler'))",
            'test_dataloader.sampler.type',
            'got mmengine.InfiniteSampler',
        ),
        (
            "train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=5)",
            'train_dataloader.sampler.type',
            'got SeededInfiniteSampler: the first epoch would never end',
        ),
        (
            'train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=5)',
            'train_dataloader.sampler.type',
            'the first epoch would never end',
        ),
    ],
)  # fmt: skip
@pytest.mark.bad_input(49)
def test_wrong_files(tmp_path, text, first, second):
    said = message(child(tmp_path, text))
    assert first in said and second in said


@pytest.mark.parametrize(
    ('key', 'value', 'first', 'second'),
    [
        ('model.decode_head.num_class', 2, 'FCNHead has no option num_class', 'num_classes?'),
        (
            'model.decode_head.loss_decode.type',
            'CrossEntropy',
            'decode_head.loss_decode',
            'CrossEntropy?',
        ),
        ('model.decode_head.norm_cfg.type', 'BNN', "called 'BNN'", ''),
        ('model.backbone.img_sise', 256, 'SAMBackbone has no option', 'img_size?'),
        ('train_dataloader.dataset.img_sufix', '.png', 'BaseSegDataset has no', 'img_suffix?'),
        ('train_dataloader.dataset.pipeline.2.keep_ration', True, 'Resize has no', 'keep_ratio?'),
        ('val_evaluator.iou_metric', ['mIoU'], 'IoUMetric has no option', 'iou_metrics?'),
    ],
)
def test_parts_of_mmseg(key, value, first, second):
    """FCNHead and IoUMetric hand their ``**kwargs`` on."""
    text = message(FCN, {key: value})
    assert first in text and second in text


@pytest.mark.parametrize(
    'text',
    [
        'default_hooks = dict(checkpoint=dict(interval=-1), timer=None)',
        "custom_hooks = [dict(type='EMAHook', momentum=0.1, priority=49)]",
        "custom_hooks = [dict(type='SegVisualizationHook', draw=True, interval=5)]",
        "custom_hooks = [dict(type='mmseg.SegVisualizationHook'), dict(type='mmengine.EMAHook')]",
        "custom_hooks = [dict(type='mmsam.ZeroShotHook')]",
        "custom_hooks = [dict(type='mmengine.hooks.EMAHook')]",
        "custom_hooks = [dict(type='ProfilerHook', on_trace_ready=dict(type='log_trace'))]",
        "optim_wrapper = dict(type='AmpOptimWrapper', clip_grad=dict(type='value'))",
        'optim_wrapper = dict(optimizer=dict(lr=0.0), paramwise_cfg=dict(custom_keys=dict()))',
        "param_scheduler = [dict(type='MultiStepLR', milestones=[1], convert_to_iter_based=True)]",
        "param_scheduler = dict(_delete_=True, one=[dict(type='ConstantLR')])",
        "optim_wrapper = dict(_delete_=True, constructor='TrainableParamsConstructor', "
        "one=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1)))",
        'train_cfg = dict(_delete_=True, by_epoch=False, max_iters=5)',
        "train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=5)\n"
        "train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True))",
        "val_evaluator = [dict(type='PromptedMaskMetric')]",
        "val_evaluator = dict(_delete_=True, metrics=[dict(type='PromptedMaskMetric')])",
        'val_cfg = None\nval_dataloader = None\nval_evaluator = None',
        'val_cfg = dict(_delete_=True, fp16=True)',
        'train_dataloader = dict(num_batch_per_epoch=3, drop_last=True, pin_memory=True)',
        "train_dataloader = dict(collate_fn=dict(type='default_collate'))",
        "model = dict(init_cfg=dict(type='Pretrained', checkpoint='x', prefix='y'))",
        "load_from = 'https://example.org/weights.pth'",
        'sync_bn = "torch"\nfind_unused_parameters = True\ncompile = True',
        'test_pipelines = []\ncrop_size = (2, 2)\nmy_optimizer = dict(anything=1)\nepochs = 5',
        # a variable may be called almost as a key, where the config uses it
        'train_cfgs = dict(val_interval=4)\ntrain_cfg = dict(**train_cfgs)',
    ],
)  # fmt: skip
def test_right_files(tmp_path, text):
    load_run_config(str(child(tmp_path, text)), None, None)


@pytest.mark.parametrize('path', [TINY, FCN])
def test_what_a_run_dumps_passes(path, tmp_path):
    """There, variables are values that nothing uses."""
    load_run_config(str(path), None, None).dump(tmp_path / 'dumped.py')
    load_run_config(str(tmp_path / 'dumped.py'), None, None)


@pytest.mark.parametrize(
    'options',
    [
        {'evaluation.interval': 3, 'train_cfg.max_iters': 3},
        {'randomness.deterministic': True, 'experiment_name': 'a'},
        {'model.image_encoder.with_cp': True, 'optim_wrapper.accumulative_counts': 2},
        {'train_dataloader.dataset.pipeline.1.max_objects': 4},
        {'custom_hooks.0.priority': 'LOW', 'auto_scale_lr.enable': False},
        {'my_own.deep.key': 1, 'default_hooks.early.type': 'EmptyCacheHook'},
        # values that do, and those that only the constructor can judge
        {'train_dataloader.dataset.pipeline.5.prob': 1},
        {'train_dataloader.dataset.pipeline.5.prob': np.float32(0.5)},
        {'train_dataloader.dataset.pipeline.1.max_objects': np.int64(2)},
        {'train_dataloader.dataset.data_root': Path('data')},
        {'train_dataloader.dataset.indices': [0, 1], 'train_dataloader.sampler.seed': None},
        {'model.image_encoder.with_cp': None, 'train_dataloader.sampler.shuffle': 0},
        {'model.image_encoder.with_cp': 'global'},
        {'default_hooks.checkpoint.save_best': ['sam/mIoU'], 'model.image_encoder.arch': 5},
        {'default_hooks.timer.type': 'EMAHook', 'default_hooks.timer.momentum': '0.1'},
        {'load_from': 'no/such.pth'},  # check_paths looks, after --load-from
    ],
)
def test_right_options(options):
    load_run_config(str(TINY), options, None)


MMSEG_CONFIGS = Path(mmseg.__file__).parent / '.mim' / 'configs'


@pytest.mark.parametrize(
    'name',
    [
        'unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py',
        'pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        'swin/swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256.py',
        'ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py',
        'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
        'san/san-vit-b16_coco-stuff164k-640x640.py',
    ],
)
def test_packaged_configs_of_mmseg_pass(name):
    load_run_config(str(MMSEG_CONFIGS / name), None, None)


def test_types_may_be_classes():
    config = Config(
        dict(
            model=dict(type=SAMBackbone, arch='vit_b', img_size=64),
            optim_wrapper=dict(optimizer=dict(type=torch.optim.SGD, lr=0.1)),
        )
    )
    check_config(config)
    config.model.img_sizes = 64
    with pytest.raises(ConfigError, match='SAMBackbone has no option img_sizes'):
        check_config(config)
    del config.model['img_sizes']
    config.model.frozen = 'no'
    with pytest.raises(ConfigError, match="^model.frozen: expected True or False, got 'no'.$"):
        check_config(config)
    del config.model['frozen']
    config.optim_wrapper.optimizer.momentun = 0.9
    with pytest.raises(ConfigError, match='SGD has no option momentun; did you mean momentum'):
        check_config(config)


def test_classes_that_take_anything_are_left_alone():
    """A hook of mmengine that hands its options to a class of another argument."""
    config = Config(dict(custom_hooks=[dict(type='EMAHook', of_the_average=1)]))
    check_config(config)


def test_options_of_wrapped_data_sets_and_of_their_loader():
    inner = dict(type='BaseSegDataset', ann_fil='x')
    loader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=inner))
    config = Config(dict(default_scope='mmseg', train_dataloader=loader))
    with pytest.raises(ConfigError, match='train_dataloader.dataset.dataset.ann_fil: .* ann_file'):
        check_config(config)


def test_ours_need_their_prefix_in_mmsegs_scope():
    config = Config(dict(default_scope='mmseg', model=dict(type='mmsam.SAMBackbone')))
    check_config(config)
    config.model.type = 'SAMBackbone'
    with pytest.raises(ConfigError, match='write mmsam.SAMBackbone'):
        check_config(config)


def test_names_are_guessed_with_their_prefix():
    config = Config(dict(default_scope='mmseg', model=dict(type='mmsam.SAMBackbon')))
    with pytest.raises(ConfigError, match='did you mean mmsam.SAMBackbone'):
        check_config(config)


@pytest.mark.parametrize('sampler', ['OHEMPixelSampler', 'OHEMPixelSamplr'])
def test_kinds_that_mmsam_has_no_node_for(sampler):
    config = Config.fromfile(FCN)
    config.model.decode_head.sampler = dict(type=sampler, thresh=0.7)
    if sampler == 'OHEMPixelSampler':
        check_config(config)
    else:
        with pytest.raises(ConfigError, match='did you mean OHEMPixelSampler'):
            check_config(config)


def test_a_dict_may_have_a_scope_of_its_own():
    """As mmengine notes it in what comes from another package's config."""
    config = Config(dict(model=dict(type='SAMBackbone', _scope_='mmsam')))
    check_config(config)
    config.model._scope_ = 'mmseg'
    with pytest.raises(ConfigError, match="not found in the scope 'mmseg'"):
        check_config(config)


def test_nothing_is_built(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('built')

    monkeypatch.setattr('mmengine.registry.Registry.build', refuse)
    monkeypatch.setattr(torch.nn.Module, '__init__', refuse)
    load_run_config(str(FCN), None, None)
