# A small SAM on generated stamped documents, from random weights: runs anywhere, no download.
_base_ = [
    '_base_/models/sam_tiny_256.py',
    '_base_/datasets/tiny_stamps.py',
    '_base_/schedules/scratch_500.py',
    '_base_/default_runtime.py',
]
