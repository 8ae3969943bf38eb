"""From the decoder's logits to scores in original px: against upstream's resize with torch."""

import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from mmsam.evaluation.mask_overlap import iou_and_dice
from mmsam.geometry import resize_longest_side_size
from mmsam.structures.predicted_masks import rles_of_logits

from .pages import Page, draw_page
from .peers import their_sam
from .rows import Measurement, Row, Scale
from .timing import interleaved

OBJECTS = 16

ROWS = (
    Row(
        'evaluation_per_mask_vs_torch_resize',
        'evaluation of a mask: to original px and its IoU, vs postprocess_masks and torch',
        required=8.0,
        max_error=1e-3,
        error_of='greatest difference of an IoU',
    ),
)


def measure(wanted: frozenset[str], scale: Scale) -> dict[str, Measurement]:
    """The row."""
    (name,) = wanted
    page = draw_page(scale.page_size, OBJECTS, object_sides=(0.1, 0.3))
    input_size = resize_longest_side_size(page.pixels.shape, scale.img_size)
    logits = smooth_logits(page, scale.img_size)
    sam = their_sam(scale)
    truth = torch.from_numpy(coco_mask.decode(page.rles)).permute(2, 0, 1).bool()

    def ours() -> list[float]:
        rles = rles_of_logits(logits, input_size, page.pixels.shape)
        return [iou_and_dice(*pair)[0] for pair in zip(rles, page.rles, strict=True)]

    def theirs() -> list[float]:
        masks = sam.postprocess_masks(logits, input_size, page.pixels.shape)[:, 0] > 0
        both, either = (masks & truth).flatten(1).sum(1), (masks | truth).flatten(1).sum(1)
        return (both / either).tolist()

    times = interleaved({'mmsam': ours, 'torch': theirs}, max(scale.rounds, 1))
    differences = zip(times.outputs['mmsam'], times.outputs['torch'], strict=True)
    error = max(abs(a - b) for a, b in differences)
    return {name: times.ratio('mmsam', 'torch', error)}


def smooth_logits(page: Page, image_size: int) -> Tensor:
    """Logits (K, 1, S/4, S/4) as of a decoder that has found every object of the page."""
    input_size = resize_longest_side_size(page.pixels.shape, image_size)
    size = tuple(max(1, side // 4) for side in input_size)
    masks = torch.from_numpy(coco_mask.decode(page.rles)).permute(2, 0, 1)[:, None].float()
    low_res = F.interpolate(masks, size, mode='area')
    low_res = F.pad(low_res, (0, image_size // 4 - size[1], 0, image_size // 4 - size[0]))
    return 20 * low_res - 10
