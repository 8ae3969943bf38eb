"""COCO's average precision of masks that were prompted with a detector's boxes."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmsam.errors import ConfigError
from mmsam.evaluation.object_count import check_any_object
from mmsam.registry import METRICS
from mmsam.structures.rle import RLE, mask_area

MAX_DETECTIONS = 100
"""Of one image and class, those with the highest scores, count; as in COCO."""

_AREAS = ('small', 'medium', 'large')


@METRICS.register_module()
class COCOMaskAP(BaseMetric):
    """Average precision and recall of masks, computed by pycocotools.

    For boxes of a detector (``prompt_boxes`` of ``BoxPromptDataset``): a mask has its box's class
    and the detector's score, so that the detector alone ranks, and two models are compared by their
    masks. Returned, with the prefix ``coco/``: ``AP`` (mean over IoU 0.5 to 0.95), ``AP50``,
    ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large`` (COCO's bounds, by the area of the mask;
    only sizes that occur) and ``AR``, means over the classes that occur.

    As in COCO, the 100 detections with the highest scores of an image and class count; where an
    image has more objects, as many as the largest number of objects in one. ``ignored_instances``
    are COCO's crowds (``iscrowd``): what is detected on one, and on no object, does not count.
    """

    default_prefix = 'coco'

    def __init__(self) -> None:
        super().__init__(collect_device='gpu')  # by messages; see PromptedMaskMetric

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the true and the predicted masks of each image.

        Args:
            data_batch: not used.
            data_samples: ``SAMDataSample.to_dict()`` with ``ori_shape``, ``gt_instances.rles`` and
                ``labels`` (K), ``pred_instances.rles``, ``prompts.scores`` and ``labels`` (D);
                ``ignored_instances.rles`` and ``labels`` (N) where there are crowds.

        Raises:
            ConfigError: the boxes have no scores.
        """
        for sample in data_samples:
            truth, prompts = sample['gt_instances'], sample['prompts']
            if 'scores' not in prompts:
                raise ConfigError(
                    'COCOMaskAP expects boxes with scores, prompt_boxes of BoxPromptDataset '
                    f'(tools/test.py --boxes), got boxes without in {sample["img_path"]}.'
                )
            true = _annotations(truth['rles'], truth['labels'].tolist())
            crowds = []
            if 'ignored_instances' in sample:
                ignored = sample['ignored_instances']
                crowds = _annotations(ignored['rles'], ignored['labels'].tolist(), iscrowd=1)
            found = _annotations(sample['pred_instances']['rles'], prompts['labels'].tolist())
            for annotation, score in zip(found, prompts['scores'].tolist(), strict=True):
                annotation['score'] = score
            self.results.append((tuple(sample['ori_shape']), true, crowds, found))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the results of all ranks, and evaluate them.

        Args:
            size: number of images of the data set.

        Raises:
            DataError: no image has an object; raised on every rank.
        """
        check_any_object('COCOMaskAP', sum(len(truth) for _, truth, *_ in self.results), size)
        return super().evaluate(size)

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Let pycocotools evaluate; called on the main rank."""
        sizes, truths, crowds, detections = zip(*results, strict=True)
        most = max(len(truth) for truth in truths)
        expected = [truth + ignored for truth, ignored in zip(truths, crowds, strict=True)]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            evaluation = COCOeval(_coco(sizes, expected), _coco(sizes, detections), 'segm')
            evaluation.params.maxDets = [max(MAX_DETECTIONS, most)]
            evaluation.evaluate()
            evaluation.accumulate()
        # (IoU thresholds, recalls, classes, areas, 1) and (IoU thresholds, classes, areas, 1)
        precision, recall = evaluation.eval['precision'], evaluation.eval['recall']
        values = {
            'AP': precision[:, :, :, 0],
            'AP50': precision[0, :, :, 0],
            'AP75': precision[5, :, :, 0],
            **{f'AP_{name}': precision[:, :, :, i] for i, name in enumerate(_AREAS, start=1)},
            'AR': recall[:, :, 0],
        }
        # -1 where no object of a class and a size is
        known = {name: value[value > -1] for name, value in values.items()}
        return {name: float(np.mean(value)) for name, value in known.items() if value.size}


def _annotations(rles: Sequence[RLE], labels: list[int], iscrowd: int = 0) -> list[dict]:
    """COCO's annotations of one image's masks, without ids."""
    return [
        {
            'category_id': label + 1,
            'segmentation': rle,
            'area': mask_area(rle),
            'iscrowd': iscrowd,
        }
        for rle, label in zip(rles, labels, strict=True)
    ]


def _coco(sizes: Sequence[tuple[int, int]], annotations: Sequence[list[dict]]) -> COCO:
    """A COCO data set of the annotations of each image; ids count from 1."""
    coco = COCO()
    numbered = [
        {**annotation, 'image_id': image_id}
        for image_id, of_image in enumerate(annotations, start=1)
        for annotation in of_image
    ]
    coco.dataset = {
        'images': [
            {'id': image_id, 'height': size[0], 'width': size[1]}
            for image_id, size in enumerate(sizes, start=1)
        ],
        'annotations': [
            {**annotation, 'id': number} for number, annotation in enumerate(numbered, start=1)
        ],
        'categories': [{'id': i} for i in sorted({one['category_id'] for one in numbered})],
    }
    coco.createIndex()
    return coco
