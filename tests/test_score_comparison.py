import json
from types import SimpleNamespace

import pytest

from mmsam.score_comparison import (
    Results,
    lines_of_worse,
    object_scores_of,
    read_results,
    split_scores,
    worse_objects,
)


def test_objects_that_became_worse_by_their_fall():
    before = {'a.png': [{'iou': 0.5}, {'iou': 0.8}], 'b.png': [{'iou': 0.9}, {'iou': 0.3}]}
    after = {'a.png': [{'iou': 0.4}, {'iou': 0.8}], 'b.png': [{'iou': 0.4}, {'iou': 0.6}]}
    worse = worse_objects(before, after)
    assert worse == [
        {'image': 'b.png', 'object': 0, 'before': 0.9, 'after': 0.4},
        {'image': 'a.png', 'object': 0, 'before': 0.5, 'after': 0.4},
    ]
    assert lines_of_worse(worse) == [
        '  0.9000 -> 0.4000  object 0 of b.png',
        '  0.5000 -> 0.4000  object 0 of a.png',
    ]


def test_a_log_names_ten():
    worse = [{'image': f'{number}.png', 'before': 0.5, 'after': 0.1} for number in range(12)]
    lines = lines_of_worse(worse)
    assert len(lines) == 11
    assert lines[9:] == ['  0.5000 -> 0.1000  9.png', '  ... and 2 more']


def test_object_scores_come_from_the_metric_that_has_them():
    metrics = [object(), SimpleNamespace(object_scores={'a.png': [{'iou': 1.0}]})]
    assert object_scores_of(metrics) == {'a.png': [{'iou': 1.0}]}
    assert object_scores_of(metrics[:1]) == {}


@pytest.mark.parametrize('text', [None, '{"before":', '[]', '{"before": {}}', '{"other": 1}'])
def test_results_that_are_none(tmp_path, text):
    if text is not None:
        (tmp_path / 'results.json').write_text(text)
    assert read_results(tmp_path) is None


def test_results_are_read(tmp_path):
    content = dict(
        before={'mIoU': 0.5}, after={}, box_fill={}, images_worse=[], iteration=3, images={}
    )
    (tmp_path / 'results.json').write_text(json.dumps(content))
    assert read_results(tmp_path) == Results({'mIoU': 0.5}, {}, {}, [], 3, {})


def test_a_name_that_two_metrics_share_keeps_its_prefix_with_its_filled_box():
    metrics = {'sam/mIoU': 0.5, 'sam/mDice': 0.6, 'sam/box_fill_mIoU': 0.3, 'semantic/mIoU': 70.0}
    assert split_scores(metrics) == (
        {'sam/mIoU': 0.5, 'mDice': 0.6, 'semantic/mIoU': 70.0},
        {'sam/mIoU': 0.3},
    )
    assert split_scores({'sam/mIoU': 0.5, 'sam/box_fill_mIoU': 0.3}) == (
        {'mIoU': 0.5},
        {'mIoU': 0.3},
    )
