# As sam_stamp.py, but boxes are the only prompts: for who never clicks.
_base_ = './sam_stamp.py'
model = dict(correction=None)
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size=1024),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='JitterBoxes'),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
