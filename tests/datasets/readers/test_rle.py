import numpy as np
import pytest
from pycocotools import mask as mask_api
from random_masks import random_masks, runs_of

from mmsam.datasets.readers.rle import boxes_of_rles, checked_rle, rles_of_ids


@pytest.mark.parametrize('mask', list(random_masks()), ids=range(5))
def test_checked_rle_is_the_mask(mask):
    expected = mask_api.encode(np.asfortranarray(mask))
    for counts in (expected['counts'].decode(), runs_of(mask)):
        rle = checked_rle(counts, mask.shape)
        assert rle['counts'] == expected['counts'] and rle['size'] == list(mask.shape)


def test_empty_runs_inside_do_not_spoil_box_and_iou():
    # columns of 10: an empty run in column 4, then pixels 92, 93, 94, rows 2 to 4 of column 9
    rle = checked_rle([40, 0, 52, 1, 0, 2, 5], (10, 10))
    assert boxes_of_rles([rle]).tolist() == [[9, 2, 10, 5]]
    assert mask_api.area(rle) == 3
    assert mask_api.iou([rle], [rle], [0]) == 1


@pytest.mark.bad_input(26)
def test_damaged_strings_never_reach_pycocotools():
    rng = np.random.default_rng(0)
    text = mask_api.encode(np.asfortranarray(next(random_masks())))['counts']
    refused = 0
    for _ in range(300):
        damaged = bytearray(text)
        damaged[rng.integers(len(text))] = rng.integers(33, 127)
        try:
            rle = checked_rle(damaged.decode(), (37, 53))
        except ValueError:
            refused += 1
        else:
            assert mask_api.decode(rle).max() <= 1
    assert refused > 200


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32])
def test_rles_of_ids(dtype):
    rng = np.random.default_rng(0)
    high = np.iinfo(dtype).max
    ids = rng.choice(np.array([0, 3, 4, high], dtype), (31, 17))
    rles = rles_of_ids(ids)
    assert list(rles) == [0, 3, 4, high]
    for value, rle in rles.items():
        expected = mask_api.encode(np.asfortranarray(ids == value).astype(np.uint8))
        assert rle == expected


def test_rles_of_one_value():
    assert list(rles_of_ids(np.full((4, 5), 7))) == [7]
    assert mask_api.decode(rles_of_ids(np.full((4, 5), 7))[7]).all()


def test_boxes_end_behind_the_last_pixel():
    mask = np.zeros((40, 50), np.uint8)
    mask[7:17, 40:50] = 1
    boxes = boxes_of_rles([mask_api.encode(np.asfortranarray(mask))])
    assert boxes.tolist() == [[40, 7, 50, 17]] and boxes.dtype == np.float32
    assert boxes_of_rles([]).shape == (0, 4)
