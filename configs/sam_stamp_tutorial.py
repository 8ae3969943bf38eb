# The public tutorial on fine-tuning SAM with stamps, line by line, but for the loss, which learns.
# docs/tutorial.md shows why the published one cannot; sam_stamp.py is the better recipe.
_base_ = './sam_stamp.py'
model = dict(correction=None)
image_size = 1024
train_dataloader = dict(
    batch_size=1,  # one image and
    sampler=dict(shuffle=False),
    dataset=dict(
        pipeline=[
            dict(type='LoadSAMImage'),
            dict(type='RandomObjects', max_objects=1),  # one box a step
            dict(type='ResizeLongestSide', image_size=image_size),
            dict(type='DecodeObjectMasks'),
            dict(type='PackSAMInputs'),
        ],
    ),
)
# torch.optim.Adam(sam_model.mask_decoder.parameters(), lr=1e-4, weight_decay=0)
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=1e-4, weight_decay=0.0),
    clip_grad=None,
)
auto_scale_lr = dict(base_batch_size=1)
param_scheduler = []
train_cfg = dict(max_iters=2000, val_interval=500)  # 100 epochs of 20 images
custom_hooks = [
    dict(type='DivergenceHook', max_skipped=10),
    dict(type='GradientCheckHook'),
    dict(type='FrozenCheckHook'),
    # MSELoss()(normalize(threshold(upscaled_masks, 0, 0)), mask) with sigmoid(upscaled_masks);
    # the IoU head is not trained
    dict(
        type='MaskLossHook',
        loss=dict(
            type='SAMMaskLoss',
            resolution='input',
            focal_weight=0.0,
            dice_weight=0.0,
            mse_weight=1.0,
            iou_weight=0.0,
        ),
    ),
    dict(type='ZeroShotHook'),
    dict(type='PromptedPictureHook', max_pictures=8),
    dict(type='StockWeightsHook'),
    dict(type='ReportHook'),
]
