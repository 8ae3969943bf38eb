# SAM ViT-B at its native 1024 px; the mask decoder trains, the rest is frozen.
model = dict(
    type='SAMSegmentor',
    data_preprocessor=dict(type='SAMDataPreprocessor', image_size=1024),
    image_encoder=dict(type='SAMImageEncoder', arch='vit_b', img_size=1024, with_cp=False),
    prompt_encoder=dict(type='SAMPromptEncoder', image_size=1024),
    mask_decoder=dict(type='SAMMaskDecoder'),
    frozen=('image_encoder', 'prompt_encoder'),
)
