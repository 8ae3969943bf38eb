"""The image encoder, forward: against segment_anything and Hugging Face's SamModel."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

import mmsam.datasets  # noqa: F401
from mmsam.geometry import resize_longest_side_size, scale_boxes
from mmsam.models import SAMSegmentor
from mmsam.models.segmentors.prompt_batch import PromptBatch
from mmsam.registry import DATASETS, MODELS
from mmsam.rgb_image import resize_rgb

from .pages import Page, draw_page
from .peers import ROOT, hugging_face_encoder, our_sam, their_sam
from .rows import Measurement, Row, Scale
from .timing import Times, interleaved

MAX_ABS = dict(max_error=1e-4, error_of='max abs of the embeddings')
MASKS = dict(max_error=0.01, error_of='1 - mean IoU of the masks')
HUGGING_FACE = ('segment_anything', 'transformers')

ROWS = (
    Row(
        'encoder_fwd_bf16_vs_segment_anything',
        'encoder forward, bf16 vs segment_anything in fp32',
        required=5.0,
        needs_fast_bf16=True,
        **MASKS,
    ),
    Row(
        'encoder_fwd_fp32_vs_segment_anything',
        'encoder forward, fp32 vs segment_anything',
        required=1.5,
        **MAX_ABS,
    ),
    Row(
        'encoder_fwd_fp32_vs_hugging_face_sdpa',
        'encoder forward, fp32 vs Hugging Face, sdpa',
        required=1.1,
        peers=HUGGING_FACE,
        **MAX_ABS,
    ),
    Row(
        'encoder_fwd_bf16_vs_hugging_face_sdpa',
        'encoder forward, bf16 vs Hugging Face, sdpa, in fp32',
        required=4.0,
        peers=HUGGING_FACE,
        needs_fast_bf16=True,
        **MASKS,
    ),
    Row(
        'encoder_fwd_fp32_vs_hugging_face_eager',
        'encoder forward, fp32 vs Hugging Face, eager',
        peers=HUGGING_FACE,
        **MAX_ABS,
    ),
)

_SIDES = {
    'encoder_fwd_bf16_vs_segment_anything': ('mmsam_bf16', 'segment_anything'),
    'encoder_fwd_fp32_vs_segment_anything': ('mmsam', 'segment_anything'),
    'encoder_fwd_fp32_vs_hugging_face_sdpa': ('mmsam', 'sdpa'),
    'encoder_fwd_bf16_vs_hugging_face_sdpa': ('mmsam_bf16', 'sdpa'),
    'encoder_fwd_fp32_vs_hugging_face_eager': ('mmsam', 'eager'),
}
"""Ours and theirs of each row."""

_DEMO_CONFIG = ROOT / 'configs' / 'sam_tiny_stamp.py'
_DEMO_WEIGHTS = ROOT / 'work_dirs' / 'demo' / 'sam_tuned.pth'
_DEMO_PAGES = 16


def measure(wanted: frozenset[str], scale: Scale) -> dict[str, Measurement]:
    """The rows of ``wanted``; all sides take turns in the same rounds."""
    sam = their_sam(scale)
    weights = sam.state_dict()
    model = our_sam(scale, weights)
    page = draw_page(scale.page_size, objects=8, object_sides=(0.05, 0.25))
    images = padded_image(model, page)
    used = {side for name in wanted for side in _SIDES[name]}
    with torch.no_grad():
        sides = dict(_all_sides(model, sam, weights, images, used))
        times = interleaved(sides, scale.rounds)
        return _results(wanted, model, page, times)


def _results(
    wanted: frozenset[str], model: SAMSegmentor, page: Page, times: Times
) -> dict[str, Measurement]:
    """Ratios and errors of what ran."""
    results = {}
    facts = trained_masks() if 'mmsam_bf16' in times.outputs else {}
    for name in wanted:
        ours, theirs = _SIDES[name]
        pair = times.outputs[ours].float(), times.outputs[theirs]
        if ours == 'mmsam_bf16':
            error, more = mask_error(model, page, *pair), facts
        else:
            error, more = float((pair[0] - pair[1]).abs().max()), {}
        results[name] = times.ratio(ours, theirs, error, **more)
    return results


def _all_sides(
    model: SAMSegmentor, sam: Any, weights: Mapping[str, Tensor], images: Tensor, used: set[str]
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    if 'segment_anything' in used:
        yield 'segment_anything', lambda: sam.image_encoder(images)
    for attention in ('eager', 'sdpa'):
        if attention in used:
            encoder = hugging_face_encoder(weights, attention)
            yield attention, lambda encoder=encoder: encoder(images).last_hidden_state
    if 'mmsam' in used:
        yield 'mmsam', lambda: model.image_encoder(images)
    if 'mmsam_bf16' in used:
        yield 'mmsam_bf16', lambda: in_bfloat16(model.image_encoder, images)


def in_bfloat16(encoder: nn.Module, images: Tensor) -> Tensor:
    """The embeddings as autocast computes them."""
    with torch.autocast(images.device.type, torch.bfloat16):
        return encoder(images)


def padded_image(model: SAMSegmentor, page: Page) -> Tensor:
    """The page (1, 3, S, S) as the image encoder gets it."""
    size = resize_longest_side_size(page.pixels.shape, model.image_size)
    pixels = resize_rgb(page.pixels[:, :, None].repeat(3, axis=2), size)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return model.data_preprocessor(dict(inputs=[image]))['inputs']


def page_prompts(model: SAMSegmentor, page: Page) -> PromptBatch:
    """The boxes of the page's objects."""
    size = resize_longest_side_size(page.pixels.shape, model.image_size)
    boxes = scale_boxes(torch.from_numpy(page.boxes()), page.pixels.shape, size).float()
    return PromptBatch.of_boxes(boxes, torch.zeros(len(boxes), dtype=torch.int64))


def mask_error(model: SAMSegmentor, page: Page, ours: Tensor, theirs: Tensor) -> float:
    """1 - the mean IoU of the masks that the same decoder makes of two embeddings.

    Of random weights, whose logits stand near 0 in many more cells than trained ones do: a bound
    rather than an estimate.
    """
    return 1 - float(_mask_ious(model, page_prompts(model, page), ours, theirs).mean())


def _mask_ious(model: SAMSegmentor, prompts: PromptBatch, first: Tensor, second: Tensor) -> Tensor:
    """IoU (P,) of the masks of each prompt, decoded from two embeddings (1, C, S/16, S/16)."""
    a, b = (model.decode_best(embedding, prompts)[0] > 0 for embedding in (first, second))
    both, either = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def trained_masks() -> dict[str, Any]:
    """Mean IoU of the masks of ``make demo``'s weights with fp32 and bf16; none without them."""
    config = Config.fromfile(_DEMO_CONFIG)
    data_root = ROOT / config.data_root
    if not _DEMO_WEIGHTS.exists() or not data_root.exists():
        return {}
    with DefaultScope.overwrite_default_scope('mmsam'):
        model = MODELS.build(config.model).eval()
        dataset = DATASETS.build(
            dict(config.val_dataloader.dataset, data_root=str(data_root), indices=_DEMO_PAGES)
        )
    model.load_weights(str(_DEMO_WEIGHTS))
    ious = []
    for item in dataset:
        images = model.data_preprocessor(dict(inputs=[item['inputs']]))['inputs']
        prompts = PromptBatch.of_samples([item['data_samples']], model.image_size, images.device)
        embeddings = in_bfloat16(model.image_encoder, images), model.image_encoder(images)
        ious.append(_mask_ious(model, prompts, embeddings[0].float(), embeddings[1]))
    return dict(trained_mask_iou=float(torch.cat(ious).mean()))
