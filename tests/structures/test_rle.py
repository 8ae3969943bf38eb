import numpy as np
import pytest
from pycocotools import mask as coco_mask
from random_masks import random_masks, runs_of

from mmsam.structures.rle import (
    decode_extent,
    encode_masks,
    encode_window,
    move_rle,
    runs_of_rle,
    runs_of_text,
)


def test_counts_by_hand():
    # down the columns: 0 1 | 1 1 | 0 0
    mask = np.array([[[0, 1, 0], [1, 1, 0]]], dtype=np.uint8)
    (rle,) = encode_masks(mask)
    assert rle['size'] == [2, 3]
    uncompressed = dict(size=[2, 3], counts=[1, 3, 2])
    assert rle['counts'] == coco_mask.frPyObjects(uncompressed, 2, 3)['counts']
    assert coco_mask.area(rle) == 3


def test_decoding_gives_each_mask_back():
    masks = np.random.default_rng(0).random((4, 13, 7)) > 0.6
    for dtype in (np.uint8, bool):
        rles = encode_masks(masks.astype(dtype))
        decoded = np.stack([coco_mask.decode(rle) for rle in rles])
        np.testing.assert_array_equal(decoded, masks)


def test_a_view_with_other_strides():
    masks = np.random.default_rng(0).random((9, 10, 6)) > 0.5
    view = masks[::2, :, ::-1]
    decoded = np.stack([coco_mask.decode(rle) for rle in encode_masks(view)])
    np.testing.assert_array_equal(decoded, view)


def test_empty_and_full_masks():
    masks = np.stack([np.zeros((5, 4), np.uint8), np.ones((5, 4), np.uint8)])
    assert [int(coco_mask.area(rle)) for rle in encode_masks(masks)] == [0, 20]


def test_no_masks():
    assert encode_masks(np.zeros((0, 5, 4), np.uint8)) == []


@pytest.mark.parametrize('mask', list(random_masks()), ids=range(5))
def test_runs_are_those_that_pycocotools_wrote(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    expected = runs_of(mask)
    expected = expected if expected[-1] else expected[:-1]
    assert runs_of_rle(rle).tolist() == expected
    assert runs_of_text(rle['counts'].decode()).tolist() == expected


@pytest.mark.parametrize('corner', [(0, 0), (3, 5), (0, 43), (24, 0)])
@pytest.mark.parametrize('mask', list(random_masks())[:3], ids=range(3))
def test_window_is_encoded_as_the_mask_it_is_part_of(mask, corner):
    window = mask[:13, :10].astype(bool)
    full = np.zeros((37, 53), np.uint8)
    full[corner[0] : corner[0] + 13, corner[1] : corner[1] + 10] = window
    assert [encode_window(window, corner, full.shape)] == encode_masks(full[None])


@pytest.mark.parametrize('mask', [*random_masks(), np.zeros((4, 5), np.uint8)], ids=range(6))
def test_window_may_be_the_whole_mask_or_full_columns(mask):
    assert [encode_window(mask.astype(bool), (0, 0), mask.shape)] == encode_masks(mask[None])
    right = np.pad(mask, ((0, 0), (7, 2)))
    assert [encode_window(mask.astype(bool), (0, 7), right.shape)] == encode_masks(right[None])


def test_window_in_a_mask_that_would_not_fit_into_memory():
    side = 20_000
    rle = encode_window(np.ones((2, 3), bool), (side - 2, side - 3), (side, side))
    assert coco_mask.area(rle) == 6 and coco_mask.toBbox(rle).tolist() == [19997, 19998, 3, 2]


@pytest.mark.parametrize('mask', [*random_masks(), np.zeros((4, 5), np.uint8)], ids=range(6))
@pytest.mark.parametrize('padding', [((0, 0), (0, 0)), ((2, 0), (3, 4)), ((0, 5), (0, 0))])
def test_extent_is_cut_out_of_the_mask(mask, padding):
    full = np.pad(mask, padding)
    window, (y, x) = decode_extent(coco_mask.encode(np.asfortranarray(full)))
    rows, columns = full.any(axis=1).nonzero()[0], full.any(axis=0).nonzero()[0]
    if len(rows):
        assert (y, x) == (rows[0], columns[0])
        assert (window == full[y : rows[-1] + 1, x : columns[-1] + 1]).all()
    assert window.sum() == full.sum()


@pytest.mark.parametrize('shift', [(0, 0), (-5, -9), (4, 0), (0, -3), (-37, 0), (3, 60)])
@pytest.mark.parametrize('mask', list(random_masks())[:3], ids=range(3))
def test_moved_masks(mask, shift):
    size = (24, 61)
    expected = np.zeros(size, np.uint8)
    for y, x in np.argwhere(mask) + shift:
        if 0 <= y < size[0] and 0 <= x < size[1]:
            expected[y, x] = 1
    (rle,) = encode_masks(mask[None])
    assert [move_rle(rle, shift, size)] == encode_masks(expected[None])


def test_full_columns_stay_one_run():
    (rle,) = encode_masks(np.ones((1, 6, 5), np.uint8))
    assert runs_of_rle(move_rle(rle, (0, 2), (6, 9))).tolist() == [12, 30, 12]
    assert runs_of_rle(move_rle(rle, (-1, 0), (4, 3))).tolist() == [0, 12]
    assert runs_of_rle(move_rle(rle, (9, 9), (4, 3))).tolist() == [12]
