# What every run of mmsam shares; the default_* names are mmengine's.
default_scope = 'mmsam'
randomness = dict(seed=0)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SAMCheckpointHook',
        by_epoch=False,
        interval=500,
        max_keep_ckpts=3,
        save_best='sam/mIoU',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='DivergenceHook', max_skipped=10),
    dict(type='GradientCheckHook'),
    dict(type='FrozenCheckHook'),
    dict(type='MaskLossHook', loss=dict(type='SAMMaskLoss', lovasz_weight=1.0)),
    dict(type='ZeroShotHook'),
    dict(type='PromptedPictureHook', max_pictures=8),
    dict(type='StockWeightsHook'),
    dict(type='ReportHook'),
]
log_processor = dict(by_epoch=False)
log_level = 'INFO'
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
load_from = None
resume = False
