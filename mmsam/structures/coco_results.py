"""Objects of an image, true and predicted, as COCO's JSON files hold them."""

from collections.abc import Sequence
from typing import Any

from pycocotools import mask as mask_utils

from mmsam.geometry import scale_boxes, scale_points

from .rle import RLE


def predictions_as_coco(
    sample: dict[str, Any], image_id: int | str, category_ids: Sequence[int] | None
) -> list[dict[str, Any]]:
    """One COCO result per prompt of an image; all coordinates are original px.

    - ``image_id``, as given; ``category_id``, see Args;
    - ``segmentation``: RLE of the predicted mask, its counts as text;
    - ``bbox``: xywh around the predicted mask, zeros if the mask is empty;
    - ``score``: the IoU head's estimate, of a detector's box its score;
    - ``prompt_box``: xywh of the box the model was given, jitter included; or
    - ``prompt_point``: (x, y) of the point that it was given instead, an index of a pixel.

    Args:
        sample: ``SAMDataSample.to_dict()`` with prompts, ground truth and predictions.
        image_id: id of the image.
        category_ids: COCO's id of each label; None counts labels from 1.
    """
    prompts, pred = sample['prompts'], sample['pred_instances']
    labels = prompts.get('labels', sample['gt_instances']['labels'])
    scores = prompts.get('scores', pred['iou_predictions'])
    sizes = sample['img_shape'], sample['ori_shape']
    if 'prompt_points' in pred:
        points = scale_points(pred['prompt_points'], *sizes)
        given = [{'prompt_point': point} for point in points.tolist()]
    else:
        boxes = scale_boxes(prompts['boxes'], *sizes)
        given = [{'prompt_box': [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in boxes.tolist()]
    return [
        {
            'image_id': image_id,
            'category_id': _category_id(label, category_ids),
            'segmentation': _text_rle(rle),
            'bbox': mask_utils.toBbox(rle).tolist(),
            'score': score,
            **prompt,
        }
        for label, rle, score, prompt in zip(
            labels.tolist(),
            pred['rles'],
            scores.tolist(),
            given,
            strict=True,
        )
    ]


def truth_as_coco(
    sample: dict[str, Any], image_id: int | str, category_ids: Sequence[int] | None
) -> list[dict[str, Any]]:
    """One COCO annotation per object of an image, without an ``id``, in original px.

    Args: as of ``predictions_as_coco``.
    """
    truth = sample['gt_instances']
    return [
        {
            'image_id': image_id,
            'category_id': _category_id(label, category_ids),
            'segmentation': _text_rle(rle),
            'bbox': mask_utils.toBbox(rle).tolist(),
            'area': int(mask_utils.area(rle)),
            'iscrowd': 0,
        }
        for label, rle in zip(truth['labels'].tolist(), truth['rles'], strict=True)
    ]


def _category_id(label: int, category_ids: Sequence[int] | None) -> int:
    return label + 1 if category_ids is None else category_ids[label]


def _text_rle(rle: RLE) -> RLE:
    size = [int(side) for side in rle['size']]
    return {'size': size, 'counts': rle['counts'].decode('ascii')}
