"""IoU and Dice of each prompt's mask, and of the filled box beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from pycocotools import mask as coco_mask

from mmsam.errors import DataError
from mmsam.registry import METRICS
from mmsam.structures.rle import RLE

SMALL_AREA, MEDIUM_AREA = 32**2, 96**2
"""COCO's bounds: a small object has fewer px than the first, a medium one than the second."""


@dataclass(frozen=True)
class PromptScore:
    """Scores of one prompt in 0..1, and the area of its true mask in original px."""

    iou: float
    dice: float
    box_fill_iou: float
    box_fill_dice: float
    area: int


@METRICS.register_module()
class PromptedMaskMetric(BaseMetric):
    """Mean IoU and Dice over all prompts, in original px.

    Every prompt counts the same, whatever its image. Returned, with the prefix ``sam/``:

    - ``mIoU``, ``mDice``: predicted against true mask;
    - ``mIoU_small``, ``mIoU_medium``, ``mIoU_large``: the same by area of the true mask
      (< 32**2 px, < 96**2 px, the rest), only for sizes that occur;
    - ``box_fill_mIoU``, ``box_fill_mDice``: the true box, filled, against the true mask. It is what
      a model reaches that learned nothing but its prompt.

    An image without prompts counts nowhere. A true mask without a single px scores 1 if the
    predicted one is empty too, else 0.

    After ``evaluate``, on the main rank, ``image_scores`` holds the mean IoU of each image with
    prompts, by ``img_path`` in the order of the data set.
    """

    default_prefix = 'sam'

    def __init__(self) -> None:
        # 'gpu' gathers by messages, on CPUs too; 'cpu' would leave files in the working directory,
        # which the machines of a run need not share
        super().__init__(collect_device='gpu')
        self.image_scores: dict[str, float] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score the prompts of each image.

        Exactly one result per image is kept, an image without prompts included: only so are the
        images dropped again that a distributed sampler repeats to fill its last batch.

        Args:
            data_batch: not used.
            data_samples: ``SAMDataSample.to_dict()`` with ``img_path``, ``pred_instances.rles``,
                ``gt_instances.rles`` and ``gt_instances.boxes``, all in original px.

        Raises:
            DataError: an image's predicted and true masks differ in number or size.
        """
        for sample in data_samples:
            image, truth = sample['img_path'], sample['gt_instances']
            predicted = sample['pred_instances']['rles']
            if len(predicted) != len(truth['rles']):
                raise DataError(
                    f'PromptedMaskMetric expected {len(truth["rles"])} predicted masks, '
                    f'got {len(predicted)} in {image}.'
                )
            scores = []
            for index, (pred, true, box) in enumerate(
                zip(predicted, truth['rles'], truth['boxes'].tolist(), strict=True)
            ):
                if list(pred['size']) != list(true['size']):
                    raise DataError(
                        f'PromptedMaskMetric expected a mask of size {list(true["size"])}, '
                        f'got {list(pred["size"])} for object {index} of {image}.'
                    )
                filled = _filled_box(box, true['size'])
                scores.append(
                    PromptScore(*_overlap(pred, true), *_overlap(filled, true), _area(true))
                )
            self.results.append((image, scores))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the results of all ranks and average them over the prompts.

        Args:
            size: number of images of the data set.

        Raises:
            DataError: no image has a prompt; raised on every rank.
        """
        prompts = torch.tensor(sum(len(scores) for _, scores in self.results))
        all_reduce(prompts)
        if not prompts:
            self.results.clear()
            raise DataError(
                f'PromptedMaskMetric expected at least one object, got none in {size} images.'
            )
        return super().evaluate(size)

    def compute_metrics(self, results: list[tuple[str, list[PromptScore]]]) -> dict[str, float]:
        """Average over all prompts; called on the main rank."""
        self.image_scores = {
            image: _mean([score.iou for score in scores]) for image, scores in results if scores
        }
        prompts = [score for _, scores in results for score in scores]
        metrics = {
            'mIoU': _mean([score.iou for score in prompts]),
            'mDice': _mean([score.dice for score in prompts]),
        }
        for name, low, high in (
            ('small', 0, SMALL_AREA),
            ('medium', SMALL_AREA, MEDIUM_AREA),
            ('large', MEDIUM_AREA, float('inf')),
        ):
            ious = [score.iou for score in prompts if low <= score.area < high]
            if ious:
                metrics[f'mIoU_{name}'] = _mean(ious)
        metrics['box_fill_mIoU'] = _mean([score.box_fill_iou for score in prompts])
        metrics['box_fill_mDice'] = _mean([score.box_fill_dice for score in prompts])
        return metrics


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _area(rle: RLE) -> int:
    return int(coco_mask.area(rle))


def _overlap(pred: RLE, true: RLE) -> tuple[float, float]:
    """IoU and Dice of two masks of equal size; 1 where both are empty."""
    overlap = _area(coco_mask.merge([pred, true], intersect=True))
    total = _area(pred) + _area(true)
    if total == 0:
        return 1.0, 1.0
    return overlap / (total - overlap), 2 * overlap / total


def _filled_box(box: Sequence[float], size: Sequence[int]) -> RLE:
    """The mask, of ``size`` (H, W), of the px whose centre lies in the xyxy ``box``."""
    limit = np.array([size[1], size[0], size[1], size[0]])
    x1, y1, x2, y2 = np.clip(np.ceil(np.asarray(box) - 0.5), 0, limit)
    xywh = np.array([[x1, y1, max(x2 - x1, 0), max(y2 - y1, 0)]])
    return coco_mask.frPyObjects(xywh, int(size[0]), int(size[1]))[0]
