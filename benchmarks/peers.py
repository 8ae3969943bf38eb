"""The peers with the same weights: segment_anything, Hugging Face's SamModel, the tutorial's loop.

Each comes from PyPI, see ``requirements/benchmarks.txt``.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.functional import normalize, threshold

from mmsam.checkpoint import save_hugging_face
from mmsam.models import SAMSegmentor
from mmsam.models.sam.image_encoder import ARCHITECTURES
from mmsam.registry import MODELS

from .pages import Page
from .rows import Scale

ROOT = Path(__file__).resolve().parents[1]


def missing(peers: Sequence[str]) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in peers if find_spec(name) is None]


def their_sam(scale: Scale) -> Any:
    """segment_anything's ``Sam``, every parameter random but the same in each call."""
    sys.path.insert(0, str(ROOT / 'tests'))
    try:
        from reference_sam import build_reference_sam
    finally:
        sys.path.remove(str(ROOT / 'tests'))
    arch = ARCHITECTURES[scale.arch] if isinstance(scale.arch, str) else dict(scale.arch)
    return build_reference_sam(arch, scale.img_size)


def model_config(scale: Scale, frozen: Sequence[str] = (), **encoder_options: Any) -> dict:
    """Config of a ``SAMSegmentor`` of this scale."""
    size = scale.img_size
    return dict(
        type='SAMSegmentor',
        image_encoder=dict(
            type='SAMImageEncoder', arch=scale.arch, img_size=size, **encoder_options
        ),
        prompt_encoder=dict(type='SAMPromptEncoder', image_size=size),
        mask_decoder=dict(type='SAMMaskDecoder'),
        data_preprocessor=dict(type='SAMDataPreprocessor', image_size=size),
        frozen=frozen,
    )


def our_sam(
    scale: Scale, weights: Mapping[str, Tensor], frozen: Sequence[str] = (), **encoder_options: Any
) -> SAMSegmentor:
    """mmsam's model in eval mode with the stock weights given."""
    with DefaultScope.overwrite_default_scope('mmsam'):
        model = MODELS.build(model_config(scale, frozen, **encoder_options)).eval()
    model.load_state_dict(weights, strict=True)
    return model


def hugging_face_encoder(weights: Mapping[str, Tensor], attention: str) -> nn.Module:
    """The image encoder of transformers' ``SamModel`` with the stock weights given.

    Args:
        weights: of all parts.
        attention: ``'eager'`` or ``'sdpa'``.
    """
    from transformers import SamModel

    with tempfile.TemporaryDirectory() as folder:
        save_hugging_face(weights, folder)
        model = SamModel.from_pretrained(folder, attn_implementation=attention)
    return model.vision_encoder.eval()


class TutorialLoop:
    """The training loop of docs/tutorial.md, written out as published.

    Images are resized, normalised and kept in memory before the loop starts, masks as arrays; both
    as in the tutorial, and neither is part of what is timed.

    Args:
        sam: segment_anything's model.
        pages: the images; all of their objects are prompts of one step.
    """

    def __init__(self, sam: Any, pages: Sequence[Page]) -> None:
        from pycocotools import mask as coco_mask
        from segment_anything.utils.transforms import ResizeLongestSide

        self.sam = sam
        self.transform = ResizeLongestSide(sam.image_encoder.img_size)
        self.data = []
        for page in pages:
            pixels = np.repeat(page.pixels[:, :, None], 3, axis=2)
            resized = torch.as_tensor(self.transform.apply_image(pixels)).permute(2, 0, 1)[None]
            masks = coco_mask.decode(page.rles).transpose(2, 0, 1)
            self.data.append(
                dict(
                    image=sam.preprocess(resized),
                    input_size=tuple(resized.shape[-2:]),
                    original_size=page.pixels.shape,
                    boxes=page.boxes(),
                    masks=np.ascontiguousarray(masks),
                )
            )
        self.optimizer = torch.optim.Adam(sam.mask_decoder.parameters(), lr=1e-4, weight_decay=0)
        self.loss_fn = torch.nn.MSELoss()

    def low_res_masks(self, data: Mapping[str, Any]) -> Tensor:
        """Logits (K, 1, S/4, S/4) of an image's boxes; only the mask decoder records a gradient."""
        sam = self.sam
        with torch.no_grad():
            image_embedding = sam.image_encoder(data['image'])
            boxes = self.transform.apply_boxes(data['boxes'], data['original_size'])
            sparse_embeddings, dense_embeddings = sam.prompt_encoder(
                points=None, boxes=torch.as_tensor(boxes, dtype=torch.float), masks=None
            )
        low_res_masks, _ = sam.mask_decoder(
            image_embeddings=image_embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse_embeddings,
            dense_prompt_embeddings=dense_embeddings,
            multimask_output=False,
        )
        return low_res_masks

    def step(self, index: int) -> None:
        """Train with one image."""
        data = self.data[index]
        upscaled_masks = self.sam.postprocess_masks(
            self.low_res_masks(data), data['input_size'], data['original_size']
        )
        binary_masks = normalize(threshold(upscaled_masks, 0.0, 0))
        truth = torch.as_tensor(data['masks'][:, None] > 0, dtype=torch.float32)
        loss = self.loss_fn(binary_masks, truth)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
