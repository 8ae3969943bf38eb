import numpy as np
import pytest
from PIL import Image

from mmsam.datasets.transforms import (
    RandomPromptedFlip,
    RandomPromptedRotate90,
    ResizeLongestSide,
)
from mmsam.errors import ConfigError


def sample(height=60, width=80):
    rng = np.random.default_rng(0)
    boxes = np.array([[10, 5, 20, 25], [30, 40, 80, 60]], np.float32)
    masks = np.zeros((2, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    return {
        'img': rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        'img_shape': (height, width),
        'boxes': boxes,
        'gt_boxes': boxes.copy(),
        'gt_masks': masks,
    }


def box_of(mask):
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize(('image_size', 'size'), [(128, (96, 128)), (40, (30, 40)), (80, (60, 80))])
@pytest.mark.trap(7)
def test_resize_equals_pillow_and_keeps_boxes_on_masks(image_size, size):
    before, results = sample(), ResizeLongestSide(image_size)(sample())
    expected = Image.fromarray(before['img']).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(results['img'], np.asarray(expected))
    assert results['img_shape'] == size
    assert results['gt_masks'].shape == (2, *size)
    np.testing.assert_allclose(results['boxes'], before['boxes'] * image_size / 80, 1e-6)
    assert results['boxes'].dtype == np.float32
    np.testing.assert_array_equal(results['gt_boxes'], before['gt_boxes'])
    for box, mask in zip(results['boxes'], results['gt_masks'], strict=True):
        np.testing.assert_allclose(box_of(mask), box, atol=0.5)


def test_resize_moves_the_boxes_of_a_detector():
    results = ResizeLongestSide(40)(sample() | {'prompt_scores': np.ones(2, np.float32)})
    np.testing.assert_array_equal(results['boxes'], sample()['boxes'] / 2)


@pytest.mark.trap(7)
def test_resize_antialiases():
    stripes = sample(64, 64)
    stripes['img'][:] = 0
    stripes['img'][:, ::4] = 200
    assert ResizeLongestSide(16)(stripes)['img'][8, 8, 0] == pytest.approx(50, abs=15)


def test_sides_are_scaled_by_their_own_rounded_size():
    results = ResizeLongestSide(32)(sample(60, 81))  # (32 * 60 / 81 = 23.7) -> 24
    assert results['img_shape'] == (24, 32)
    np.testing.assert_allclose(
        results['boxes'][0], [10 * 32 / 81, 5 * 24 / 60, 20 * 32 / 81, 25 * 24 / 60], rtol=1e-6
    )


@pytest.mark.parametrize(('direction', 'axis'), [('horizontal', 1), ('vertical', 0)])
def test_flip_moves_all_together(direction, axis):
    before, results = sample(), RandomPromptedFlip(1.0, direction)(sample())
    np.testing.assert_array_equal(results['img'], np.flip(before['img'], axis))
    for box, mask in zip(results['boxes'], results['gt_masks'], strict=True):
        assert box_of(mask) == box.tolist()
    assert not np.array_equal(results['boxes'], before['boxes'])
    moved = RandomPromptedFlip(1.0, direction)(results)
    for key in ('img', 'boxes', 'gt_masks'):
        np.testing.assert_array_equal(moved[key], before[key])
    assert 'gt_boxes' not in results


def test_turns_move_all_together_and_are_equally_likely():
    before, turns = sample(), []
    for seed in range(200):
        np.random.seed(seed)
        results = RandomPromptedRotate90()(sample())
        for box, mask in zip(results['boxes'], results['gt_masks'], strict=True):
            assert box_of(mask) == box.tolist()
        assert results['img'].shape[:2] == results['img_shape'] == results['gt_masks'].shape[1:]
        turns += [k for k in range(4) if np.array_equal(np.rot90(before['img'], k), results['img'])]
    assert len(turns) == 200 and min(np.bincount(turns)) > 35
    assert results['boxes'].dtype == np.float32 and 'gt_boxes' not in results


def test_a_quarter_turn_by_hand(monkeypatch):
    monkeypatch.setattr(np.random, 'randint', lambda _: 1)
    results = RandomPromptedRotate90()(sample())
    # 80 wide, 60 high: the right edge goes up, so (10, 5, 20, 25) is (5, 80 - 20, 25, 80 - 10)
    assert results['boxes'].tolist() == [[5, 60, 25, 70], [40, 0, 60, 50]]
    np.testing.assert_array_equal(results['img'][0, 0], sample()['img'][0, -1])


def test_flip_as_often_as_asked():
    for prob, low, high in ((0.0, 0, 0), (0.3, 0.2, 0.4), (1.0, 1, 1)):
        np.random.seed(0)
        flip = RandomPromptedFlip(prob)
        flips = [flip(sample())['boxes'][0, 0] == 60 for _ in range(300)]
        assert low <= np.mean(flips) <= high


def test_wrong_options():
    undecoded = {key: value for key, value in sample().items() if key != 'gt_masks'}
    for transform in (RandomPromptedFlip(0.0), RandomPromptedRotate90()):
        with pytest.raises(ConfigError, match='behind DecodeObjectMasks'):
            transform(dict(undecoded))
    for transform in (RandomPromptedFlip(0.0), RandomPromptedRotate90(), ResizeLongestSide(9)):
        with pytest.raises(ConfigError, match='must stand before .* prompt_boxes is drawn already'):
            transform(sample() | {'prompt_boxes': sample()['boxes']})
    with pytest.raises(ConfigError, match="did you mean 'vertical'"):
        RandomPromptedFlip(direction='vertcal')
    with pytest.raises(ConfigError, match='prob'):
        RandomPromptedFlip(prob=50)
    with pytest.raises(ConfigError, match='image_size'):
        ResizeLongestSide(0)
