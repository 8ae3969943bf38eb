import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmsam.datasets.transforms import DecodeObjectMasks, RandomScaleCrop, ResizeLongestSide
from mmsam.errors import ConfigError
from mmsam.structures.rle import encode_masks

HEIGHT, WIDTH = 60, 80
BOXES = [(10, 5, 20, 25), (30, 40, 70, 56)]


def sample(boxes=BOXES):
    """An image that is white where an object is."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        'img': np.dstack([masks.any(axis=0) * np.uint8(255)] * 3),
        'img_shape': (HEIGHT, WIDTH),
        'ori_shape': (HEIGHT, WIDTH),
        'boxes': boxes,
        'gt_boxes': boxes.copy(),
        'labels': np.arange(len(boxes)),
        'rles': encode_masks(masks),
    }


def transformed(seed, scale_range, image_size=64, boxes=BOXES):
    np.random.seed(seed)
    return RandomScaleCrop(image_size, scale_range)(sample(boxes))


@pytest.mark.parametrize('scale_range', [(0.2, 1.0), (1.0, 4.0), (0.1, 2.0)])
def test_image_masks_and_boxes_stay_together(scale_range):
    for seed in range(40):
        results = DecodeObjectMasks()(transformed(seed, scale_range))
        assert len(results['labels']) == len(results['boxes']) == len(results['gt_masks']) > 0
        assert results['img'].shape[:2] == results['img_shape'] == results['gt_masks'].shape[1:]
        assert max(results['img_shape']) <= 64
        white = results['img'][..., 0] > 127
        shown = results['gt_masks'].any(axis=0)
        scale = results['img_shape'][0] / results['ori_shape'][0]
        # only an object of which too little is left may be white and no mask
        lost = (white & ~shown).sum() / scale**2
        assert lost <= 0.1 * 640 + results['gt_masks'].shape[0] * 40 / scale + 40
        assert (shown & ~white).sum() <= 40 * max(1, scale)
        for box, mask in zip(results['boxes'], results['gt_masks'], strict=True):
            x, y, width, height = coco_mask.toBbox(encode_masks(mask[None])[0])
            np.testing.assert_allclose(box, [x, y, x + width, y + height], atol=max(1, scale))


def test_zoomed_out_is_the_whole_image_made_smaller():
    results = transformed(0, (0.5, 0.5))
    expected = ResizeLongestSide(32)(sample())
    for key in ('img', 'boxes', 'img_shape', 'labels', 'rles', 'ori_shape'):
        np.testing.assert_array_equal(results[key], expected[key])
    assert 'gt_boxes' not in results


def test_zoomed_in_shows_a_window_in_full_resolution():
    for seed in range(20):
        results = transformed(seed, (2.0, 2.0), image_size=40)  # a window of 40 px, not resized
        assert results['ori_shape'] == (40, 40) == results['img_shape']
        for rle, label, box in zip(
            results['rles'], results['labels'], results['boxes'], strict=True
        ):
            x1, y1, x2, y2 = BOXES[label]
            width, height = box[2:] - box[:2]
            assert width <= x2 - x1 and height <= y2 - y1
            assert coco_mask.area(rle) == width * height >= 0.1 * (x2 - x1) * (y2 - y1)
            assert (results['img'][coco_mask.decode(rle) == 1] == 255).all()


def test_a_window_without_objects_is_not_taken():
    corner = [(0, 0, 2, 2)]
    sides = set()
    for seed in range(60):
        results = transformed(seed, (8.0, 8.0), boxes=corner)  # windows of 10 px: 1 of 1400 has it
        assert results['labels'].tolist() == [0]
        sides.add(results['ori_shape'])
    assert (HEIGHT, WIDTH) in sides  # ten windows in vain
    assert transformed(0, (8.0, 8.0), boxes=[])['ori_shape'] == (10, 10)


@pytest.mark.parametrize('scale_range', [(0, 1), (2, 1), (1,), (1, np.inf)])
def test_wrong_options(scale_range):
    with pytest.raises(ConfigError, match='scale_range of RandomScaleCrop'):
        RandomScaleCrop(64, scale_range)


def test_wrong_places_in_the_pipeline():
    with pytest.raises(ConfigError, match='must stand before DecodeObjectMasks'):
        RandomScaleCrop(64)(sample() | {'gt_masks': []})
    with pytest.raises(ConfigError, match='prompt_points is drawn already'):
        RandomScaleCrop(64)(sample() | {'prompt_points': []})
