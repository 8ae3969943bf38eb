# As sam_stamp.py, prompted as SAM was trained: boxes, points and rough masks, then 8 clicks.
_base_ = './sam_stamp.py'
model = dict(correction=dict(num_clicks=8, num_repeats=2))
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size=1024),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='JitterBoxes'),
    dict(type='RandomPrompts', box=0.45, point=0.45, mask=0.1),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
