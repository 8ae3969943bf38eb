import numpy as np
import pytest

from mmsam.datasets.transforms import JitterBoxes, RandomObjects, RandomPrompts
from mmsam.errors import ConfigError
from mmsam.prompt_sampling import PromptKind


def jitter(boxes, size, **options):
    np.random.seed(0)
    results = {'boxes': np.array(boxes, np.float32), 'img_shape': size}
    before = results['boxes'].copy()
    jittered = JitterBoxes(**options)(results)['prompt_boxes']
    np.testing.assert_array_equal(results['boxes'], before)
    assert jittered.dtype == np.float32 and jittered.shape == before.shape
    return jittered - before


@pytest.mark.trap(7)
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


@pytest.mark.parametrize('drawn', ['prompt_boxes', 'prompt_kinds'])
def test_random_objects_stand_before_prompts(drawn):
    message = f'RandomObjects must stand before .*RandomPrompts.*: {drawn} is drawn already'
    with pytest.raises(ConfigError, match=message):
        RandomObjects(9)(objects(2) | {drawn: np.zeros(2)})


def test_wrong_options():
    for wrong in ({'ratio': -0.1}, {'max_pixels': -1}):
        with pytest.raises(ConfigError, match='JitterBoxes'):
            JitterBoxes(**wrong)
    for wrong in (0, '4'):
        with pytest.raises(ConfigError, match=f'max_objects .* at least 1, got {wrong!r}'):
            RandomObjects(wrong)


def masks_of_boxes(boxes, size):
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def first_prompts(boxes, size=(30, 42), prompt_boxes=None, seed=0, **proportions):
    np.random.seed(seed)
    results = {
        'boxes': np.array(boxes, np.float32).reshape(-1, 4),
        'gt_masks': masks_of_boxes(boxes, size),
        'img_shape': size,
    }
    if prompt_boxes is not None:
        results['prompt_boxes'] = np.array(prompt_boxes, np.float32)
    return RandomPrompts(**proportions)(results)


def test_kinds_come_in_their_proportions():
    results = first_prompts([[3, 4, 9, 9]] * 4000, (16, 16), box=2, point=1, mask=1)
    shares = np.bincount(results['prompt_kinds']) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.03)
    assert set(first_prompts([[3, 4, 9, 9]] * 9, point=1, box=0)['prompt_kinds']) == {1}


def test_points_are_uniform_on_the_object():
    results = first_prompts([[3, 4, 5, 7]] * 6000, (16, 16), point=1)
    assert results['prompt_points'].shape == (6000, 1, 2)
    pixels, counts = np.unique(results['prompt_points'][:, 0], axis=0, return_counts=True)
    assert pixels.tolist() == [[x, y] for x in (3, 4) for y in (4, 5, 6)]
    np.testing.assert_allclose(counts, 1000, atol=130)


def test_an_object_without_a_pixel_is_prompted_by_its_box():
    results = first_prompts([[3, 3, 3, 3], [3, 3, 4, 4]], box=0, point=1)
    assert results['prompt_kinds'].tolist() == [PromptKind.BOX, PromptKind.POINT]


def test_an_object_whose_rough_mask_is_empty_is_prompted_by_its_box():
    boxes = [[8, 8, 24, 20], [8, 8, 24, 20]]
    between_centres = [8.6, 8.0, 9.4, 20.0]  # no pixel's centre is inside
    results = first_prompts(boxes, prompt_boxes=[between_centres, boxes[1]], box=0, mask=1)
    assert not results['prompt_masks'][0].any()
    assert results['prompt_kinds'].tolist() == [PromptKind.BOX, PromptKind.MASK]


def test_rough_masks_fill_the_jittered_box():
    """Objects that fill their boxes, so the moved ones fill the others, cell by cell."""
    boxes = [[8, 8, 24, 20], [4, 4, 12, 12], [0, 0, 42, 30]]
    moved = [[10, 6, 30, 21], [0, 5, 7, 12], [0, 0, 42, 30]]
    results = first_prompts(boxes, prompt_boxes=moved, box=0, mask=1)
    padded = np.pad(masks_of_boxes(moved, (30, 42)), ((0, 0), (0, 2), (0, 2)))
    expected = padded.reshape(3, 8, 4, 11, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(results['prompt_masks'], expected)
    assert results['prompt_masks'].dtype == np.float32


def test_masks_only_where_they_are_drawn():
    results = first_prompts([[8, 8, 24, 20]] * 40, mask=1, point=1, box=1)
    drawn = results['prompt_kinds'] == PromptKind.MASK
    assert 0 < drawn.sum() < 40
    assert (results['prompt_masks'].any(axis=(1, 2)) == drawn).all()
    assert 'prompt_masks' not in first_prompts([[8, 8, 24, 20]], point=1)
    assert first_prompts([], mask=1)['prompt_masks'].shape == (0, 8, 11)


@pytest.mark.parametrize('proportions', [dict(box=-1), dict(box=0)])
def test_wrong_proportions(proportions):
    with pytest.raises(ConfigError, match='RandomPrompts must be >= 0 and not all 0'):
        RandomPrompts(**proportions)


def test_prompts_need_decoded_masks():
    with pytest.raises(ConfigError, match='behind DecodeObjectMasks'):
        RandomPrompts()({'rles': []})
