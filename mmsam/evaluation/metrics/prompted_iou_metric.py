"""mmseg's IoU of semantic maps, for masks that were prompted."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmsam.registry import METRICS
from mmsam.structures.rle import RLE, decode_extent, mask_area

BACKGROUND = 'background'
"""Class 0 of the maps; the data set's classes follow."""


@METRICS.register_module()
class PromptedIoUMetric(IoUMetric):
    """Paint the masks of an image into a semantic map, and evaluate the maps as mmseg does.

    So a promptable model can be compared with a semantic one. Larger masks are painted first, so
    that smaller ones lie upon them; the truth likewise. All px that no mask covers are background,
    the first class. Returned, with the prefix ``semantic/`` and in percent: ``aAcc``, ``mIoU``,
    ``mAcc``, or what else ``iou_metrics`` asks for. It takes one array of the image's size, in
    original px, for each of the two maps.

    Args:
        iou_metrics: of 'mIoU', 'mDice', 'mFscore', see ``IoUMetric``.
    """

    default_prefix = 'semantic'

    def __init__(self, iou_metrics: Sequence[str] = ('mIoU',)) -> None:
        # 'gpu': by messages; see PromptedMaskMetric
        super().__init__(iou_metrics=list(iou_metrics), collect_device='gpu')

    @IoUMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        classes = (BACKGROUND, *dataset_meta['classes'])
        self._dataset_meta = {**dataset_meta, 'classes': classes}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Paint and compare the maps of each image.

        Args:
            data_batch: not used.
            data_samples: ``SAMDataSample.to_dict()`` with ``ori_shape``, ``gt_instances.rles`` and
                ``labels``, ``pred_instances.rles`` and, if the boxes are a detector's,
                ``prompts.labels``.
        """
        painted = []
        for sample in data_samples:
            size, truth = sample['ori_shape'], sample['gt_instances']
            labels = sample.get('prompts', {}).get('labels', truth['labels'])
            painted.append(
                {
                    'pred_sem_seg': {
                        'data': _paint(sample['pred_instances']['rles'], labels, size)
                    },
                    'gt_sem_seg': {'data': _paint(truth['rles'], truth['labels'], size)},
                }
            )
        super().process(data_batch, painted)


def _paint(rles: Sequence[RLE], labels: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (H, W) int16: 0 for background, else label + 1."""
    semantic_map = torch.zeros(*size, dtype=torch.int16)
    masks = sorted(zip(rles, labels.tolist(), strict=True), key=lambda mask: -mask_area(mask[0]))
    for rle, label in masks:
        window, (y, x) = decode_extent(rle)
        height, width = window.shape
        part = semantic_map[y : y + height, x : x + width]
        part[torch.from_numpy(window).bool()] = label + 1
    return semantic_map
