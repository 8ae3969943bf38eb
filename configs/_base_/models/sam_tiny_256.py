# A small SAM (1.9 M parameters) at 256 px that trains from random weights on a CPU.
model = dict(
    type='SAMSegmentor',
    data_preprocessor=dict(type='SAMDataPreprocessor', image_size=256),
    image_encoder=dict(
        type='SAMImageEncoder',
        arch=dict(embed_dim=128, depth=4, num_heads=4, window_size=8, global_attn_indexes=(1, 3)),
        img_size=256,
        out_chans=128,
    ),
    prompt_encoder=dict(type='SAMPromptEncoder', image_size=256, embed_dim=128),
    mask_decoder=dict(type='SAMMaskDecoder', transformer_dim=128, transformer_mlp_dim=512),
    frozen=(),
    prompt_chunk=256,  # small images
)
