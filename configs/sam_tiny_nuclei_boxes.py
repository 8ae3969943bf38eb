# As sam_tiny_nuclei.py, but boxes are the only prompts.
_base_ = './sam_tiny_nuclei.py'
model = dict(correction=None)
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size=256),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='JitterBoxes', max_pixels=1),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
