import json

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from mmsam.errors import ConfigError
from mmsam.evaluation.metrics.prediction_export import PredictionExport
from mmsam.structures import SAMDataSample

SIZE = (20, 30)


def rectangle(x1, y1, x2, y2):
    mask = np.zeros(SIZE, np.uint8, order='F')
    mask[y1:y2, x1:x2] = 1
    return mask


def sample(img_id, boxes, labels, masks, scores):
    """A sample whose input is the original enlarged twice; ``boxes`` in original px."""
    result = SAMDataSample(metainfo=dict(img_id=img_id, ori_shape=SIZE, img_shape=(40, 60)))
    result.prompts = InstanceData(boxes=torch.tensor(boxes).reshape(-1, 4) * 2)
    result.gt_instances = InstanceData(labels=torch.tensor(labels, dtype=torch.int64))
    result.pred_instances = InstanceData(
        rles=[mask_utils.encode(mask) for mask in masks],
        iou_predictions=torch.tensor(scores),
    )
    return result


@pytest.fixture
def samples():
    return [
        sample(
            7,
            [[2.0, 3.0, 12.0, 9.0], [15.0, 0.0, 30.0, 20.0]],
            [0, 1],
            [rectangle(3, 3, 12, 8), rectangle(0, 0, 0, 0)],
            [0.75, 0.5],
        ),
        sample(8, [], [], [], []),
        sample(9, [[0.0, 0.0, 30.0, 20.0]], [1], [rectangle(0, 0, 30, 20)], [1.0]),
    ]


def export(path, samples, size=None, **meta):
    evaluator = Evaluator(PredictionExport(out_file=str(path)))
    evaluator.dataset_meta = dict(classes=('a', 'b'), **meta)
    evaluator.process(samples[:2])
    evaluator.process(samples[2:])
    scores = evaluator.evaluate(len(samples) if size is None else size)
    return scores, json.loads(path.read_text())


def test_entries_by_hand(tmp_path, samples):
    scores, entries = export(tmp_path / 'new' / 'predictions.json', samples)
    assert scores == {}
    assert [(entry['image_id'], entry['category_id']) for entry in entries] == [
        (7, 1),
        (7, 2),
        (9, 2),
    ]
    assert [entry['bbox'] for entry in entries] == [[3, 3, 9, 5], [0, 0, 0, 0], [0, 0, 30, 20]]
    assert [entry['score'] for entry in entries] == [0.75, 0.5, 1.0]
    assert [entry['prompt_box'] for entry in entries] == [
        [2, 3, 10, 6],
        [15, 0, 15, 20],
        [0, 0, 30, 20],
    ]
    assert entries[0]['segmentation']['size'] == [20, 30]


def test_points_that_were_given_instead_of_the_boxes(tmp_path, samples):
    points = torch.tensor([[10.0, 8.0], [41.0, 19.0]])  # of an input twice as large
    samples[0].pred_instances.prompt_points = points
    _, entries = export(tmp_path / 'predictions.json', samples)
    assert [entry.get('prompt_point') for entry in entries] == [[4.75, 3.75], [20.25, 9.25], None]
    assert ['prompt_box' in entry for entry in entries] == [False, False, True]


def test_category_ids_of_the_data_set_are_used(tmp_path, samples):
    _, entries = export(tmp_path / 'predictions.json', samples, category_ids=(3, 11))
    assert [entry['category_id'] for entry in entries] == [3, 11, 11]


def test_images_repeated_to_fill_up_ranks_are_dropped(tmp_path, samples):
    path = tmp_path / 'predictions.json'
    _, entries = export(path, [*samples, samples[0]], size=len(samples))
    assert [entry['image_id'] for entry in entries] == [7, 7, 9]


def test_no_prompts_at_all(tmp_path, samples):
    assert export(tmp_path / 'predictions.json', samples[1:2])[1] == []


def test_pycocotools_loads_the_file(tmp_path, samples):
    truth = tmp_path / 'truth.json'
    height, width = SIZE
    truth.write_text(
        json.dumps(
            {
                'info': {},
                'images': [dict(id=i, height=height, width=width) for i in (7, 8, 9)],
                'categories': [dict(id=1, name='a'), dict(id=2, name='b')],
                'annotations': [
                    dict(
                        id=1,
                        image_id=7,
                        category_id=1,
                        iscrowd=0,
                        area=54,
                        bbox=[3, 3, 9, 6],
                        segmentation=[[3, 3, 12, 3, 12, 9, 3, 9]],
                    )
                ],
            }
        )
    )
    export(tmp_path / 'predictions.json', samples)
    results = COCO(str(truth)).loadRes(str(tmp_path / 'predictions.json'))
    first, second = results.loadAnns(results.getAnnIds(imgIds=[7]))
    assert (results.annToMask(first) == rectangle(3, 3, 12, 8)).all()
    assert not results.annToMask(second).any()
    [whole] = results.loadAnns(results.getAnnIds(imgIds=[9], catIds=[2]))
    assert results.annToMask(whole).all()


def test_another_file_type_is_refused():
    with pytest.raises(ConfigError, match='predictions.pkl'):
        PredictionExport(out_file='predictions.pkl')
