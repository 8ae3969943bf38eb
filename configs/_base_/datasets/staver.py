# Stamps on scanned documents (StaVer), as converted by staver.py; SAM's 1024 px.
prepare_data = (
    'python tools/dataset_converters/staver.py SRC data/staver, SRC being the StaVer archive'
)
data_root = 'data/staver'
image_size = 1024
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size=image_size),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='JitterBoxes'),
    dict(type='RandomPrompts', box=2, point=1),
    dict(type='PackSAMInputs'),
]
test_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='ResizeLongestSide', image_size=image_size),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='SeededInfiniteSampler'),
    dataset=dict(
        type='BoxPromptDataset',
        data_root=data_root,
        data_prefix=dict(img='images'),
        reader=dict(type='coco', ann_file='annotations_train.json'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BoxPromptDataset',
        data_root=data_root,
        data_prefix=dict(img='images'),
        reader=dict(type='coco', ann_file='annotations_val.json'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BoxPromptDataset',
        data_root=data_root,
        data_prefix=dict(img='images'),
        reader=dict(type='coco', ann_file='annotations_test.json'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='PromptedMaskMetric')
test_evaluator = val_evaluator
