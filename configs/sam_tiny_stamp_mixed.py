# As sam_tiny_stamp.py, from its weights, with boxes, points, rough masks, and clicks that correct.
_base_ = './sam_tiny_stamp.py'
load_from = 'work_dirs/demo/sam_tuned.pth'  # make demo
model = dict(
    correction=dict(num_clicks=3, num_repeats=1),
    test_cfg=dict(num_clicks=3),
)
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size=256),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='RandomPromptedFlip', prob=0.5, direction='vertical'),
    dict(type='JitterBoxes', max_pixels=1),
    dict(type='RandomPrompts', box=0.45, point=0.45, mask=0.1),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
