"""How well each prompt's mask agrees with the truth: boundary, quality estimate, noise, clicks."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from pycocotools import mask as coco_mask

from mmsam.errors import DataError
from mmsam.evaluation.mask_overlap import boundary_iou, iou_and_dice
from mmsam.evaluation.object_count import check_any_object
from mmsam.registry import METRICS
from mmsam.structures.rle import RLE, mask_area

SMALL_AREA, MEDIUM_AREA = 32**2, 96**2
"""COCO's bounds: a small object has fewer px than the first, a medium one than the second."""

REPORTED_CLICKS = (1, 2, 3, 5, 10)
"""Numbers of clicks after which the mean IoU is reported."""

NOC_TARGETS = (0.85, 0.90)
"""IoUs to which the clicks are counted."""


@dataclass(frozen=True)
class ObjectScore:
    """Scores of one object in 0..1.

    ``iou_prediction`` is the IoU head's estimate, ``area`` that of the true mask in original px,
    ``label`` the index into the classes. ``noise_ious`` has the IoU by box noise, ``click_ious``
    that after each click.
    """

    iou: float
    dice: float
    boundary_iou: float
    iou_prediction: float
    area: int
    label: int
    box_fill_iou: float
    box_fill_dice: float
    noise_ious: Mapping[float, float] = field(default_factory=dict)
    click_ious: Sequence[float] = ()


_SCORES: dict[str, Callable[[ObjectScore], float]] = {
    'mIoU': lambda score: score.iou,
    'mDice': lambda score: score.dice,
    'mBIoU': lambda score: score.boundary_iou,
    'IoU_error': lambda score: abs(score.iou_prediction - score.iou),
    'IoU_bias': lambda score: score.iou_prediction - score.iou,
}
"""What is averaged over all objects, over those of a size and over those of a class."""

_SIZES = (
    ('small', 0, SMALL_AREA),
    ('medium', SMALL_AREA, MEDIUM_AREA),
    ('large', MEDIUM_AREA, float('inf')),
)


@METRICS.register_module()
class PromptedMaskMetric(BaseMetric):
    """Means over all objects of how well their masks, in original px, agree with the truth.

    Every object counts the same, whatever its image. Returned, with the prefix ``sam/``:

    - ``mIoU``, ``mDice``, ``mBIoU``: predicted against true mask, the last by their boundaries
      (``boundary_iou``);
    - ``IoU_error``, ``IoU_bias``: the IoU head's estimate minus the IoU, its absolute value and
      itself;
    - the five with ``_small``, ``_medium`` or ``_large``: by area of the true mask (< 32**2 px,
      < 96**2 px, the rest), only for sizes that occur;
    - the five with ``_class_NAME``: by class, only for classes that occur, and only if the data set
      has more than one; what is neither letter, digit, ``.`` nor ``-`` in a name becomes ``_``;
    - ``mIoU_noise5``, ...: mIoU with boxes that are moved by 5 % of their sides, and so on, if the
      model predicted that (``test_cfg.box_noise``);
    - ``mIoU_click1``, ``_click2``, ``_click3``, ``_click5``, ``_click10``: mIoU after so many
      clicks, as far as the model was given them (``test_cfg.num_clicks``, N);
    - ``NoC85``, ``NoC90``: the mean number of clicks until IoU is at least 0.85, 0.90; N where it
      never is. Source: "Reviving Iterative Training with Mask Guidance" (RITM, Sofiiuk et al.,
      2021), whose NoC this is;
    - ``box_fill_mIoU``, ``box_fill_mDice``: the true box, filled, against the true mask. It is what
      a model reaches that learned nothing but its prompt.

    An image without prompts counts nowhere. A true mask without a single px scores 1 if the
    predicted one is empty too, else 0.

    After ``evaluate``, on the main rank, by ``img_path`` in the order of the data set, images
    without prompts left out: ``object_scores`` has the fields of ``ObjectScore`` as a dict for each
    object, in its image's order; ``image_scores`` their mean IoU.
    """

    default_prefix = 'sam'

    def __init__(self) -> None:
        # 'gpu' gathers by messages, on CPUs too; 'cpu' would leave files in the working directory,
        # which the machines of a run need not share
        super().__init__(collect_device='gpu')
        self.object_scores: dict[str, list[dict[str, Any]]] = {}
        self.image_scores: dict[str, float] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score the prompts of each image.

        Exactly one result per image is kept, an image without prompts included: only so are the
        images dropped again that a distributed sampler repeats to fill its last batch.

        Args:
            data_batch: not used.
            data_samples: ``SAMDataSample.to_dict()`` with ``img_path``; ``pred_instances.rles``,
                ``iou_predictions`` and, if there are any, ``noise_rles`` (then ``box_noise`` too)
                and ``click_rles``; ``gt_instances.rles``, ``boxes`` and ``labels``; all in original
                px.

        Raises:
            DataError: an image's predicted and true masks differ in number or size.
        """
        for sample in data_samples:
            self.results.append((sample['img_path'], _score_objects(sample)))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the results of all ranks and average them over the prompts.

        Args:
            size: number of images of the data set.

        Raises:
            DataError: no image has a prompt; raised on every rank.
        """
        objects = sum(len(scores) for _, scores in self.results)
        check_any_object('PromptedMaskMetric', objects, size)
        return super().evaluate(size)

    def compute_metrics(self, results: list[tuple[str, list[ObjectScore]]]) -> dict[str, float]:
        """Average over all objects; called on the main rank."""
        self.object_scores = {}
        for image, scores in results:
            if scores:
                self.object_scores.setdefault(image, []).extend(map(asdict, scores))
        self.image_scores = {
            image: _mean(score['iou'] for score in scores)
            for image, scores in self.object_scores.items()
        }
        objects = [score for _, scores in results for score in scores]
        metrics = _means(objects, '')
        for name, low, high in _SIZES:
            metrics |= _means([score for score in objects if low <= score.area < high], f'_{name}')
        for label, name in enumerate(self._class_names()):
            metrics |= _means([score for score in objects if score.label == label], name)
        for level in objects[0].noise_ious:
            ious = (score.noise_ious[level] for score in objects)
            metrics[f'mIoU_noise{100 * level:g}'] = _mean(ious)
        metrics |= _click_means([score.click_ious for score in objects])
        metrics['box_fill_mIoU'] = _mean(score.box_fill_iou for score in objects)
        metrics['box_fill_mDice'] = _mean(score.box_fill_dice for score in objects)
        return metrics

    def _class_names(self) -> list[str]:
        """What the names of each class's scores end with; none of an only class."""
        classes = (self.dataset_meta or {}).get('classes', ())
        if len(classes) < 2:
            return []
        names = ['_class_' + re.sub(r'[^\w.-]', '_', str(name)) for name in classes]
        return [
            f'{name}_{label}' if names.count(name) > 1 else name for label, name in enumerate(names)
        ]


def _score_objects(sample: dict) -> list[ObjectScore]:
    """Scores of the objects of one image."""
    truth, pred = sample['gt_instances'], sample['pred_instances']
    noise_levels = sample.get('box_noise', ())
    count = len(truth['rles'])
    for name, masks in pred.items():
        if name.endswith('rles') and len(masks) != count:
            raise DataError(
                f'PromptedMaskMetric expected {count} predicted masks, '
                f'got {len(masks)} in {sample["img_path"]}.'
            )
    scores = []
    for index, (predicted, true) in enumerate(zip(pred['rles'], truth['rles'], strict=True)):
        if list(predicted['size']) != list(true['size']):
            raise DataError(
                f'PromptedMaskMetric expected a mask of size {list(true["size"])}, '
                f'got {list(predicted["size"])} for object {index} of {sample["img_path"]}.'
            )
        box_fill_iou, box_fill_dice = iou_and_dice(
            _filled_box(truth['boxes'][index].tolist(), true['size']), true
        )
        noisy = pred['noise_rles'][index] if 'noise_rles' in pred else []
        clicked = pred['click_rles'][index] if 'click_rles' in pred else []
        iou, dice = iou_and_dice(predicted, true)
        scores.append(
            ObjectScore(
                iou=iou,
                dice=dice,
                boundary_iou=boundary_iou(predicted, true),
                iou_prediction=float(pred['iou_predictions'][index]),
                area=mask_area(true),
                label=int(truth['labels'][index]),
                box_fill_iou=box_fill_iou,
                box_fill_dice=box_fill_dice,
                noise_ious=dict(zip(noise_levels, _ious(noisy, true), strict=True)),
                click_ious=_ious(clicked, true),
            )
        )
    return scores


def _ious(masks: Iterable[RLE], true: RLE) -> list[float]:
    return [iou_and_dice(mask, true)[0] for mask in masks]


def _means(objects: Sequence[ObjectScore], suffix: str) -> dict[str, float]:
    """Each of ``_SCORES`` by its name with ``suffix``; nothing without objects."""
    if not objects:
        return {}
    return {f'{name}{suffix}': _mean(map(score, objects)) for name, score in _SCORES.items()}


def _click_means(click_ious: Sequence[Sequence[float]]) -> dict[str, float]:
    """Mean IoU after some clicks and clicks to some IoUs, from K objects' IoUs after N clicks."""
    ious = np.array(click_ious)
    if not ious.size:
        return {}
    total = ious.shape[1]
    metrics = {
        f'mIoU_click{clicks}': _mean(ious[:, clicks - 1].tolist())
        for clicks in REPORTED_CLICKS
        if clicks <= total
    }
    for target in NOC_TARGETS:
        reached = ious >= target
        needed = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, total)
        metrics[f'NoC{100 * target:g}'] = _mean(needed.tolist())
    return metrics


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _filled_box(box: Sequence[float], size: Sequence[int]) -> RLE:
    """The mask, of ``size`` (H, W), of the px whose centre lies in the xyxy ``box``."""
    limit = np.array([size[1], size[0], size[1], size[0]])
    x1, y1, x2, y2 = np.clip(np.ceil(np.asarray(box) - 0.5), 0, limit)
    xywh = np.array([[x1, y1, max(x2 - x1, 0), max(y2 - y1, 0)]])
    return coco_mask.frPyObjects(xywh, int(size[0]), int(size[1]))[0]
