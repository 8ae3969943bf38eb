# As sam_tiny_nuclei.py, but large images are seen in tiles of 256 px, in training and prediction.
_base_ = './sam_tiny_nuclei.py'
model = dict(test_cfg=dict(num_clicks=0))  # tiles take boxes only
tiling = dict(tile_size=256, overlap=64)  # an overlap as large as most objects
# the model resizes each tile
test_pipeline = [dict(type='LoadSAMImage'), dict(type='PackSAMInputs')]
train_dataloader = dict(dataset=dict(tiling=tiling))
val_dataloader = dict(dataset=dict(tiling=tiling, pipeline=test_pipeline))
test_dataloader = val_dataloader
