# A small SAM on real microscopy, from random weights (or --load-from a run of sam_tiny_stamp.py).
_base_ = [
    '_base_/models/sam_tiny_256.py',
    '_base_/datasets/nuclei.py',
    '_base_/schedules/scratch_800.py',
    '_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(mean=(50, 47, 56), std=(73, 69, 81)))  # of the training images
