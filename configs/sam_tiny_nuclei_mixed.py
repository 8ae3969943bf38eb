# As sam_tiny_nuclei.py, but rough masks are prompts, too, and more clicks correct them.
_base_ = './sam_tiny_nuclei.py'
model = dict(correction=dict(num_clicks=3, num_repeats=1))
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size=256),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='JitterBoxes', max_pixels=1),
    dict(type='RandomPrompts', box=0.45, point=0.45, mask=0.1),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
