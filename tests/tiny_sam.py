"""A SAM small enough for tests, and batches for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsam.models import SAMSegmentor
from mmsam.registry import MODELS
from mmsam.structures import SAMDataSample

TINY_ARCH: dict[str, Any] = dict(
    embed_dim=48, depth=2, num_heads=3, global_attn_indexes=(1,), window_size=3
)
"""One block with windows, which need padding on most grids, and a global one."""


class SquaredLogits(nn.Module):
    """A loss with a gradient for every prompt and for the IoU head."""

    def forward(
        self,
        *,
        low_res_logits: Tensor,
        iou_predictions: Tensor,
        target_masks: Tensor,
        input_sizes: Tensor,
    ) -> dict[str, Tensor]:
        return dict(
            loss_mask=low_res_logits.square().sum((1, 2, 3)) * 1e-4,
            loss_iou=iou_predictions.square().sum(1) * 1e-2,
        )


def segmentor_config(
    img_size: int = 128, arch: Any = None, encoder: dict | None = None, **options: Any
) -> dict:
    return dict(
        type='mmsam.SAMSegmentor',
        image_encoder=dict(
            type='SAMImageEncoder', arch=arch or TINY_ARCH, img_size=img_size, **(encoder or {})
        ),
        prompt_encoder=dict(type='SAMPromptEncoder', image_size=img_size),
        mask_decoder=dict(type='SAMMaskDecoder'),
        data_preprocessor=dict(type='SAMDataPreprocessor', image_size=img_size),
        **options,
    )


def build_segmentor(
    img_size: int = 128, arch: Any = None, encoder: dict | None = None, **options: Any
) -> SAMSegmentor:
    """A small segmentor; ``options`` as ``SAMSegmentor`` takes them, ``encoder`` its encoder's."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmsam'):
        return MODELS.build(segmentor_config(img_size, arch, encoder, **options))


def make_sample(
    input_size: tuple[int, int],
    boxes: Tensor | Sequence[Sequence[float]],
    original_size: tuple[int, int] | None = None,
    **metainfo: Any,
) -> SAMDataSample:
    """A sample with boxes (K, 4) in input px; each one's mask in input px is the filled box."""
    height, width = input_size
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    sample = SAMDataSample(
        metainfo=dict(
            img_path='made_in_test.png',
            img_id=0,
            img_shape=input_size,
            ori_shape=original_size or input_size,
            **metainfo,
        )
    )
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample.prompts = InstanceData(boxes=boxes)
    sample.gt_instances = InstanceData(
        boxes=boxes.clone(), labels=torch.zeros(len(boxes), dtype=torch.int64), masks=masks
    )
    return sample


def random_boxes(number: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Boxes (number, 4) float32 xyxy inside an image of ``size`` (h, w)."""
    rng = np.random.default_rng(seed)
    height, width = size
    x = np.sort(rng.uniform(0, width, (number, 2)), axis=1)
    y = np.sort(rng.uniform(0, height, (number, 2)), axis=1)
    return torch.from_numpy(np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)).float()


def random_batch(
    sizes: Sequence[tuple[int, int]], counts: Sequence[int], seed: int = 0
) -> dict[str, list]:
    """A collated batch: images (3, h, w) uint8 of these sizes with so many prompts each."""
    generator = torch.Generator().manual_seed(seed)
    inputs, data_samples = [], []
    for index, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        inputs.append(torch.randint(0, 256, (3, *size), generator=generator).to(torch.uint8))
        data_samples.append(make_sample(size, random_boxes(count, size, seed=seed + index)))
    return dict(inputs=inputs, data_samples=data_samples)
