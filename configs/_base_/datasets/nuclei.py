# Nuclei in microscopy (a subset of Data Science Bowl 2018); 256 px.
prepare_data = 'ln -s FOLDER data/nuclei, FOLDER holding images/ and annotations_{train,val}.json'
data_root = 'data/nuclei'
image_size = 256
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size=image_size),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    # less than the paper's 5 px at this size: a short training learns to use boxes first
    dict(type='JitterBoxes', max_pixels=1),
    dict(type='RandomPrompts', box=2, point=1),
    dict(type='PackSAMInputs'),
]
test_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='ResizeLongestSide', image_size=image_size),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # small images: a worker would take more from the training than it gives
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
    batch_size=4,
    num_workers=0,
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
test_dataloader = val_dataloader
val_evaluator = dict(type='PromptedMaskMetric')
test_evaluator = val_evaluator
