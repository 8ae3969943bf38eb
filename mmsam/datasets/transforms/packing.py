"""The last step of a pipeline."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from mmsam.prompt_sampling import SEED_LIMIT
from mmsam.registry import TRANSFORMS
from mmsam.structures import SAMDataSample

_METAINFO = ('img_path', 'img_id', 'ori_shape', 'img_shape', 'image_reading', 'tiles')


@TRANSFORMS.register_module()
class PackSAMInputs(BaseTransform):
    """Packs a sample as the model takes it.

    Gives ``inputs`` (3, h, w) uint8 RGB in input px, or, where the image is encoded already,
    ``image_embeddings`` (C, S/16, S/16) float16; and ``data_samples``, a ``SAMDataSample``
    with ``prompts.boxes`` (``prompt_boxes`` where a transform drew them, else ``boxes``; input px),
    ``prompts.seeds``, what ``RandomPrompts`` drew as ``prompts.kinds``, ``points`` and ``masks``,
    the ``prompts.scores`` and ``labels`` of a detector's boxes,
    and ``gt_instances``: ``labels``; ``masks`` in input px if they were decoded, else ``rles`` in
    original px; ``boxes`` in original px, unless a flip left that frame. Of an image with
    ``ignored_rles``, also ``ignored_instances``: ``rles`` in original px, and ``labels``.
    """

    def transform(self, results: dict) -> dict:
        boxes = torch.from_numpy(results.get('prompt_boxes', results['boxes']))
        seeds = torch.from_numpy(np.random.randint(0, SEED_LIMIT, size=len(boxes), dtype=np.int64))
        prompts = InstanceData(boxes=boxes, seeds=seeds)
        for name in ('kinds', 'points', 'masks', 'scores', 'labels'):
            if f'prompt_{name}' in results:
                prompts[name] = torch.from_numpy(results[f'prompt_{name}'])
        truth = InstanceData(labels=torch.from_numpy(results['labels']))
        if 'gt_boxes' in results:
            truth.boxes = torch.from_numpy(results['gt_boxes'])
        if 'gt_masks' in results:
            truth.masks = torch.from_numpy(results['gt_masks'])
        else:
            truth.rles = results['rles']
        sample = SAMDataSample(metainfo={key: results[key] for key in _METAINFO if key in results})
        sample.prompts = prompts
        sample.gt_instances = truth
        if 'ignored_rles' in results:
            labels = torch.from_numpy(results['ignored_labels'])
            sample.ignored_instances = InstanceData(labels=labels, rles=results['ignored_rles'])
        if 'image_embeddings' in results:
            return {'image_embeddings': results['image_embeddings'], 'data_samples': sample}
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return {'inputs': torch.from_numpy(image), 'data_samples': sample}
