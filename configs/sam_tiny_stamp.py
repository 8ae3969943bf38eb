# A small SAM on generated stamped documents, from random weights: runs anywhere, no download.
_base_ = [
    '_base_/models/sam_tiny_256.py',
    '_base_/datasets/tiny_stamps.py',
    '_base_/schedules/scratch_800.py',
    '_base_/default_runtime.py',
]
# statistics of the pages: with those of photographs all paper looks alike and far from 0,
# and a training from random weights takes long to see what is on it; another program that opens the
# weights has to subtract the same
model = dict(data_preprocessor=dict(mean=(241, 241, 241), std=(23, 23, 23)))
