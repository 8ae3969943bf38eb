# As sam_stamp.py, but every part of SAM trains. Checkpointing keeps the encoder's memory small.
_base_ = './sam_stamp.py'
model = dict(image_encoder=dict(with_cp=True), frozen=())
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    accumulative_counts=4,
)
auto_scale_lr = dict(base_batch_size=8)  # 4 accumulated batches of 2
