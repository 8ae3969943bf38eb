# An mmseg model on SAM's image encoder: semantic segmentation of stamps, without prompts.
_base_ = './_base_/default_runtime.py'
image_size = 256
prepare_data = 'make data/tiny_stamps/annotations_train.json'
data_root = 'data/tiny_stamps'
classes = dict(classes=('background', 'stamp'))
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=(image_size, image_size),
    test_cfg=dict(size=(image_size, image_size)),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='SAMBackbone',
        arch=dict(embed_dim=192, depth=6, num_heads=3, window_size=8, global_attn_indexes=(2, 5)),
        img_size=image_size,
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=256,
        in_index=0,
        channels=64,
        num_convs=1,
        concat_input=False,
        num_classes=2,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[1.0, 5.0]),
    ),
    test_cfg=dict(mode='whole'),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=classes,
        data_prefix=dict(img_path='images', seg_map_path='semantic_maps'),
        img_suffix='.png',
        ann_file='train.txt',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=classes,
        data_prefix=dict(img_path='images', seg_map_path='semantic_maps'),
        img_suffix='.png',
        ann_file='val.txt',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice'])
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='mmsam.SAMOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01, fused=True),
)
auto_scale_lr = dict(base_batch_size=8)  # images an update that lr is for
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=40, by_epoch=False),
    dict(type='CosineAnnealingLR', by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
custom_hooks = [  # those of the runtime that need no prompts
    dict(type='DivergenceHook', max_skipped=10),
    dict(type='GradientCheckHook'),
    dict(type='FrozenCheckHook'),
    dict(type='ZeroShotHook'),
    dict(type='ReportHook'),
]
