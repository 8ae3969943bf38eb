import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmsam.errors import ConfigError, DataError
from mmsam.evaluation import COCOMaskAP
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks

SIZE = (40, 40)


def squares(*corners, side=10):
    masks = np.zeros((len(corners), *SIZE), np.uint8)
    for mask, (x, y) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = 1
    return encode_masks(masks)


def sample(true, true_labels, found, found_labels, scores):
    result = SAMDataSample(metainfo={'img_path': 'a.png', 'ori_shape': SIZE})
    result.gt_instances = InstanceData(
        rles=true, labels=torch.tensor(true_labels, dtype=torch.int64)
    )
    result.pred_instances = InstanceData(rles=found)
    result.prompts = InstanceData(
        scores=torch.tensor(scores), labels=torch.tensor(found_labels, dtype=torch.int64)
    )
    return result


def evaluate(*samples):
    metric = COCOMaskAP()
    metric.process({}, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


def test_perfect_masks(capsys):
    truth = squares((0, 0), (20, 20))
    metrics = evaluate(
        sample(truth, [0, 1], truth[::-1], [1, 0], [0.9, 0.1]), sample([], [], [], [], [])
    )
    names = ('AP', 'AP50', 'AP75', 'AP_small', 'AR')
    assert metrics == pytest.approx({f'coco/{name}': 1.0 for name in names})
    assert capsys.readouterr().out == ''


def test_average_precision_by_hand():
    """Ranked: right with IoU 1, wrong, right with IoU 8/12; one object is missed.

    Up to 0.65 precision at recalls 1/3 and 2/3 is 1 and 2/3, above it 1 at 1/3. COCO takes it at
    101 recalls, 0 to 33 % and 34 to 66 %.
    """
    truth = squares((0, 0), (20, 0), (0, 20))
    found = [*squares((0, 0)), *squares((20, 20)), *squares((22, 0))]
    metrics = evaluate(sample(truth, [0, 0, 0], found, [0, 0, 0], [0.9, 0.8, 0.7]))
    low, high = (34 * 1 + 33 * 2 / 3) / 101, 34 * 1 / 101
    assert metrics['coco/AP50'] == pytest.approx(low)
    assert metrics['coco/AP75'] == pytest.approx(high)
    assert metrics['coco/AP'] == pytest.approx((4 * low + 6 * high) / 10)
    assert metrics['coco/AR'] == pytest.approx((4 * 2 / 3 + 6 * 1 / 3) / 10)


def test_a_mask_of_another_class_is_wrong():
    truth = squares((0, 0), (20, 20))
    metrics = evaluate(sample(truth, [0, 1], truth, [0, 0], [0.9, 0.8]))
    assert metrics['coco/AP'] == pytest.approx(0.5)  # 1 of the first class, 0 of the second
    assert metrics['coco/AR'] == pytest.approx(0.5)


def test_more_objects_than_coco_counts():
    """With 100 detections an image recall would be 100/144."""
    truth = squares(*((x, y) for x in range(0, 36, 3) for y in range(0, 36, 3)), side=2)
    metrics = evaluate(sample(truth, [0] * 144, truth, [0] * 144, [0.5] * 144))
    assert metrics['coco/AP'] == pytest.approx(1) == metrics['coco/AR']


def test_what_cannot_be_evaluated():
    without = sample(squares((0, 0)), [0], squares((0, 0)), [0], [1.0])
    del without.prompts.scores
    with pytest.raises(ConfigError, match='--boxes.* without in a.png'):
        evaluate(without)
    with pytest.raises(DataError, match='at least one object, got none in 1 images'):
        evaluate(sample([], [], squares((0, 0)), [0], [1.0]))
