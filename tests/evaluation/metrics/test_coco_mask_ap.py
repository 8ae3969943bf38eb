import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmsam.datasets import BoxPromptDataset
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


def annotation(number, image_id, category_id, box, iscrowd=0):
    x, y, width, height = box
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    return dict(
        id=number, image_id=image_id, category_id=category_id, bbox=box, segmentation=[outline],
        area=width * height, iscrowd=iscrowd,
    )  # fmt: skip


def result(image_id, category_id, box, score):
    x, y, width, height = box
    mask = np.zeros((80, 100), np.uint8, order='F')
    mask[y : y + height, x : x + width] = 1
    rle = mask_api.encode(mask)
    segmentation = {'size': rle['size'], 'counts': rle['counts'].decode()}
    return dict(
        image_id=image_id, category_id=category_id, bbox=box, score=score, segmentation=segmentation
    )


SCENE = [
    annotation(1, 1, 3, [0, 0, 10, 10]),
    annotation(2, 1, 3, [40, 0, 50, 40], iscrowd=1),
    annotation(3, 1, 7, [0, 40, 40, 40]),
    annotation(4, 2, 7, [0, 0, 30, 30], iscrowd=1),  # an image without objects
]
DETECTIONS = [
    result(1, 3, [42, 2, 10, 10], 0.9),  # two on one crowd
    result(1, 3, [42, 20, 10, 10], 0.8),
    result(1, 3, [33, 0, 20, 10], 0.7),  # 13/20 on the crowd: wrong above 0.65
    result(1, 3, [0, 0, 10, 8], 0.6),
    result(1, 7, [60, 0, 10, 10], 0.95),  # on a crowd of the other class
    result(1, 7, [0, 40, 40, 38], 0.5),
    result(2, 7, [5, 5, 10, 10], 0.99),
    result(2, 3, [50, 50, 10, 10], 0.3),
]


def test_crowds_are_ignored_as_pycocotools_does_with_the_same_files(tmp_path):
    def of_files(annotations):
        files['ann.json']['annotations'] = annotations
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content))
        truth = COCO(tmp_path / 'ann.json')
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'results.json')), 'segm')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        names = {'AP': 0, 'AP50': 1, 'AP75': 2, 'AP_small': 3, 'AP_medium': 4, 'AR': 8}
        return {f'coco/{name}': evaluation.stats[place] for name, place in names.items()}

    images = [dict(id=i, file_name=f'{i}.png', height=80, width=100) for i in (1, 2)]
    categories = [dict(id=3, name='cell'), dict(id=7, name='vessel')]
    files = {'ann.json': dict(images=images, categories=categories), 'results.json': DETECTIONS}
    for image in images:
        Image.new('RGB', (100, 80)).save(tmp_path / image['file_name'])
    without = of_files([record for record in SCENE if not record['iscrowd']])
    expected = of_files(SCENE)
    assert all(expected[f'coco/{name}'] > without[f'coco/{name}'] for name in ('AP', 'AP50'))

    dataset = BoxPromptDataset(
        reader=dict(type='coco', ann_file='ann.json'),
        data_root=str(tmp_path),
        data_prefix=dict(img=''),
        pipeline=[
            dict(type='LoadSAMImage'),
            dict(type='ResizeLongestSide', image_size=64),
            dict(type='PackSAMInputs'),
        ],
        metainfo=dict(classes=('vessel', 'cell')),
        empty_images='keep',
        prompt_boxes=str(tmp_path / 'results.json'),
        test_mode=True,
    )
    samples = [dataset[index]['data_samples'] for index in range(len(dataset))]
    for one in samples:
        of_image = [found for found in DETECTIONS if found['image_id'] == one.img_id]
        one.pred_instances = InstanceData(rles=[found['segmentation'] for found in of_image])
    assert evaluate(*samples) == pytest.approx(expected)


def test_what_cannot_be_evaluated():
    without = sample(squares((0, 0)), [0], squares((0, 0)), [0], [1.0])
    del without.prompts.scores
    with pytest.raises(ConfigError, match='--boxes.* without in a.png'):
        evaluate(without)
    with pytest.raises(DataError, match='at least one object, got none in 1 images'):
        evaluate(sample([], [], squares((0, 0)), [0], [1.0]))
    crowd = sample([], [], squares((0, 0)), [0], [1.0])
    crowd.ignored_instances = InstanceData(rles=squares((0, 0)), labels=torch.tensor([0]))
    with pytest.raises(DataError, match='at least one object, got none in 1 images'):
        evaluate(crowd)
