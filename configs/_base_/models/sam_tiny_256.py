# A small SAM at 256 px that trains from scratch on a CPU; the prompt encoder stays as it starts.
model = dict(
    type='SAMSegmentor',
    data_preprocessor=dict(type='SAMDataPreprocessor', image_size=256),
    image_encoder=dict(
        type='SAMImageEncoder',
        arch=dict(embed_dim=192, depth=6, num_heads=3, window_size=8, global_attn_indexes=(2, 5)),
        img_size=256,
    ),
    prompt_encoder=dict(type='SAMPromptEncoder', image_size=256),
    mask_decoder=dict(type='SAMMaskDecoder'),
    frozen=(),
)
