# A small SAM on real microscopy, from the weights that make demo trained on stamps.
_base_ = [
    '_base_/models/sam_tiny_256.py',
    '_base_/datasets/nuclei.py',
    '_base_/schedules/scratch_800.py',
    '_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=(50, 47, 56), std=(73, 69, 81)),  # of the training images
    correction=dict(num_clicks=2, num_repeats=0),
    test_cfg=dict(num_clicks=3),
)
# from random weights the masks of objects this small stay empty (training-from-scratch.md)
load_from = 'work_dirs/demo/sam_tuned.pth'  # make demo
