# Fine-tune the mask decoder of SAM ViT-B on the stamps of StaVer: the config to start from.
_base_ = [
    '_base_/models/sam_vit_b.py',
    '_base_/datasets/staver.py',
    '_base_/schedules/finetune_4k.py',
    '_base_/default_runtime.py',
]
# Boxes and points, then clicks on the errors: better with boxes, and points go on working.
model = dict(
    correction=dict(num_clicks=2, num_repeats=0),
    test_cfg=dict(num_clicks=3),
)
embedding_cache = dict(folder='work_dirs/embeddings')  # the frozen encoder sees each image once
load_from = 'https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth'
