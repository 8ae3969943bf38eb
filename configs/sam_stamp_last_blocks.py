# As sam_stamp.py, but the last four of the encoder's twelve blocks and its neck train too.
# Nothing is stored of the blocks before them.
_base_ = './sam_stamp.py'
model = dict(image_encoder=dict(frozen_stages=8), frozen=('prompt_encoder',))
embedding_cache = None  # embeddings change while their encoder trains
optim_wrapper = dict(
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=0.8),  # as SAM itself was trained
    optimizer=dict(lr=2e-5),
    accumulative_counts=4,
)
auto_scale_lr = dict(base_batch_size=8)  # 4 accumulated batches of 2
