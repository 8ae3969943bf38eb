# As sam_stamp.py, but every part of SAM trains, blocks close to the image more slowly.
# Checkpointing keeps the encoder's memory small.
_base_ = './sam_stamp.py'
model = dict(image_encoder=dict(with_cp=True), frozen=())
embedding_cache = None  # embeddings change while their encoder trains
optim_wrapper = dict(
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=0.8),  # as SAM itself was trained
    optimizer=dict(lr=2e-5),
    accumulative_counts=4,
)
auto_scale_lr = dict(base_batch_size=8)  # 4 accumulated batches of 2
