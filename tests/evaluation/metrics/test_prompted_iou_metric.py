import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from mmsam.evaluation import PromptedIoUMetric
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks

CLASSES = ('a', 'b', 'c')


def instances(masks, labels):
    return InstanceData(
        rles=encode_masks(np.array(masks, np.uint8).reshape(-1, 9, 12)),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def sample(true, true_labels, pred):
    result = SAMDataSample(metainfo={'img_path': 'a.png', 'ori_shape': (9, 12)})
    result.gt_instances = instances(true, true_labels)
    result.pred_instances = InstanceData(rles=instances(pred, [0] * len(pred)).rles)
    return result


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((9, 12), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


TRUE = [rectangle(1, 1, 4, 4), rectangle(0, 0, 8, 8), rectangle(9, 1, 12, 3)]
PRED = [rectangle(2, 1, 5, 4), rectangle(0, 0, 7, 8), rectangle(9, 0, 12, 3)]


def painted(masks):
    """By hand: b (label 1) is the largest, a and b lie on it, c beside it."""
    semantic_map = np.zeros((9, 12), np.int64)
    for index, value in ((1, 2), (0, 1), (2, 3)):
        semantic_map[masks[index] > 0] = value
    return torch.from_numpy(semantic_map)


def score(metric, samples, classes):
    metric.dataset_meta = {'classes': classes}
    metric.process({}, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


def test_it_is_mmsegs_metric_of_the_painted_maps():
    by_hand = SegDataSample(
        pred_sem_seg=PixelData(data=painted(PRED)), gt_sem_seg=PixelData(data=painted(TRUE))
    )
    empty = torch.zeros(9, 12, dtype=torch.int64)
    nothing = SegDataSample(
        pred_sem_seg=PixelData(data=empty), gt_sem_seg=PixelData(data=empty.clone())
    )
    names = ['mIoU', 'mDice']
    expected = score(IoUMetric(iou_metrics=names), [by_hand, nothing], ('background', *CLASSES))
    found = score(
        PromptedIoUMetric(iou_metrics=names),
        [sample(TRUE, [0, 1, 2], PRED), sample([], [], [])],
        CLASSES,
    )
    assert found == {f'semantic/{name}': value for name, value in expected.items()}
    assert 50 < found['semantic/mIoU'] < 100


def test_iou_by_hand():
    found = score(PromptedIoUMetric(), [sample(TRUE[2:], [0], PRED[2:])], ('a',))
    background, foreground = (108 - 9) / (108 - 6), 6 / 9
    assert found['semantic/mIoU'] == pytest.approx(50 * (background + foreground), abs=0.01)


def test_boxes_of_a_detector_bring_their_classes():
    one = sample(TRUE[:1], [0], PRED[:2])
    one.prompts = InstanceData(labels=torch.tensor([1, 0]))
    other = sample(TRUE[:1], [0], PRED[1::-1])
    other.prompts = InstanceData(labels=torch.tensor([0, 1]))
    # a: 3 of 47 + 9 - 3 px; b: only predicted, 9 px; c: nowhere, so that it does not count
    expected = 100 * (52 / 99 + 3 / 53 + 0) / 3
    for each in (one, other):
        found = score(PromptedIoUMetric(), [each], CLASSES)
        assert found['semantic/mIoU'] == pytest.approx(expected, abs=0.01)
