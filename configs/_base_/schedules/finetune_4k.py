# 4000 iterations of AdamW at 1e-4 for a pretrained SAM: warm-up, times a cosine to 0.
# Both factors multiply; the cosine spans train_cfg.max_iters, whatever that is set to.
optim_wrapper = dict(
    type='SAMOptimWrapper',
    constructor='TrainableParamsConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
auto_scale_lr = dict(base_batch_size=2)  # images an update that lr is for
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4000, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
