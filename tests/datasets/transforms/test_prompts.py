import numpy as np
import pytest

from mmsam.datasets.transforms import JitterBoxes, RandomObjects
from mmsam.errors import ConfigError


def jitter(boxes, size, **options):
    np.random.seed(0)
    results = {'boxes': np.array(boxes, np.float32), 'img_shape': size}
    before = results['boxes'].copy()
    jittered = JitterBoxes(**options)(results)['prompt_boxes']
    np.testing.assert_array_equal(results['boxes'], before)
    assert jittered.dtype == np.float32 and jittered.shape == before.shape
    return jittered - before


def test_jitter_is_a_tenth_of_the_side_both_ways():
    shift = jitter([[300, 300, 400, 350]] * 20000, (1024, 1024))
    np.testing.assert_allclose(shift.mean(axis=0), 0, atol=0.3)
    np.testing.assert_allclose(shift[:, [0, 2]].std(axis=0), 9.6, atol=0.3)  # cut off at 2 sigma
    np.testing.assert_allclose(shift[:, [1, 3]].std(axis=0), 5.0, atol=0.15)
    correlation = np.corrcoef(shift.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.03


def test_jitter_is_at_most_20_px():
    shift = jitter([[200, 200, 800, 800]] * 2000, (1024, 1024))
    assert np.abs(shift).max() == 20
    assert (np.abs(shift) == 20).mean() == pytest.approx(0.739, abs=0.02)  # beyond 1/3 sigma
    assert np.abs(jitter([[20, 20, 80, 80]] * 100, (99, 99), max_pixels=2.0)).max() == 2


def test_jittered_boxes_stay_inside_and_at_least_1_px():
    boxes = np.array([[0, 0, 50, 40], [0, 0, 0.2, 0.2], [49.9, 39.5, 50, 40]] * 300, np.float32)
    moved = jitter(boxes, (40, 50), ratio=0.8) + boxes
    assert moved.min() >= 0
    assert (moved[:, [0, 2]] <= 50).all() and (moved[:, [1, 3]] <= 40).all()
    assert (moved[:, 2:] - moved[:, :2]).min() > 0.999
    assert jitter(np.zeros((0, 4)), (40, 50)).shape == (0, 4)


def objects(count):
    number = np.arange(count)
    return {
        'boxes': np.tile(number[:, None], 4).astype(np.float32),
        'gt_boxes': np.tile(number[:, None], 4).astype(np.float32),
        'labels': number,
        'rles': number.tolist(),
        'gt_masks': np.tile(number[:, None, None], (2, 3)),
        'img_id': 5,
    }


def test_random_objects_choose_the_same_everywhere():
    np.random.seed(0)
    seen = set()
    for _ in range(60):
        results = RandomObjects(2)(objects(5))
        labels = results['labels'].tolist()
        assert len(labels) == 2 and labels == sorted(labels) == results['rles']
        assert results['boxes'][:, 0].tolist() == labels
        assert results['gt_boxes'][:, 3].tolist() == labels
        assert results['gt_masks'][:, 1, 2].tolist() == labels
        seen.add(tuple(labels))
    assert len(seen) == 10  # every pair of five


def test_few_objects_stay():
    assert RandomObjects(5)(objects(5))['labels'].tolist() == [0, 1, 2, 3, 4]
    assert RandomObjects(5)(objects(0))['rles'] == []


def test_wrong_options():
    for wrong in ({'ratio': -0.1}, {'max_pixels': -1}):
        with pytest.raises(ConfigError, match='JitterBoxes'):
            JitterBoxes(**wrong)
    with pytest.raises(ConfigError, match='max_objects'):
        RandomObjects(0)
