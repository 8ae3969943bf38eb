import math
import tracemalloc

import numpy as np
import pytest

from mmsam.evaluation.mask_overlap import boundary_iou, iou_and_dice
from mmsam.structures.rle import encode_masks, encode_window


def random_masks():
    """Pairs of blobs that touch the borders, have holes, or are nearly the same."""
    rng = np.random.default_rng(0)
    for size in [(7, 9), (16, 16), (60, 80), (120, 40)]:
        height, width = size
        for _ in range(4):
            masks = np.zeros((2, *size), bool)
            for mask in masks:
                for value in (True, True, True, False):
                    y, x = rng.integers(0, size)
                    mask[y : y + height // 2, x : x + width // 2] = value
            yield masks
    square = np.zeros((2, 100, 120), bool)
    square[:, 20:80, 30:90] = True
    square[1, 79] = False
    yield square


def slow_band(mask, distance):
    """From the definition: pixels of the mask with a pixel that is not within the distance."""
    height, width = mask.shape
    band = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        rows, columns = range(y - distance, y + distance + 1), range(x - distance, x + distance + 1)
        band[y, x] = any(
            not (0 <= row < height and 0 <= column < width) or not mask[row, column]
            for row in rows
            for column in columns
        )
    return band


@pytest.mark.parametrize('masks', list(random_masks()))
def test_boundary_iou_is_that_of_the_definition(masks):
    distance = max(1, int(0.02 * math.sqrt(masks.shape[1] ** 2 + masks.shape[2] ** 2) + 0.5))
    first, second = (slow_band(mask, distance) for mask in masks)
    expected = (first & second).sum() / (first | second).sum()
    assert boundary_iou(*encode_masks(masks)) == pytest.approx(expected)


def test_boundary_iou_by_hand():
    """6 x 6 of 8 x 8 px, with a band of 1 px: the outline; and 6 x 5 px."""
    masks = np.zeros((2, 8, 8), bool)
    masks[:, 1:7, 1:7] = True
    masks[1, :, 6] = False
    # bands of 20 and 18 px; shared: the first column, of the first and the last row four more each
    expected = (6 + 8) / (20 + 18 - 14)
    assert boundary_iou(*encode_masks(masks)) == pytest.approx(expected)


def test_the_border_of_the_image_is_boundary():
    """A mask that fills its image has a band along the image's border."""
    masks = np.ones((2, 8, 8), bool)
    masks[1, 1:7, 1:7] = False  # the band itself
    assert boundary_iou(*encode_masks(masks)) == 1
    assert iou_and_dice(*encode_masks(masks))[0] == 28 / 64


def test_empty_masks_and_masks_apart():
    masks = np.zeros((3, 9, 9), bool)
    masks[1, :3, :3] = masks[2, 5:, 5:] = True
    empty, first, second = encode_masks(masks)
    assert boundary_iou(empty, empty) == 1 and iou_and_dice(empty, empty) == (1, 1)
    assert boundary_iou(empty, first) == boundary_iou(first, empty) == 0
    assert boundary_iou(first, second) == 0 and iou_and_dice(first, second) == (0, 0)


def test_a_large_page_is_never_an_array():
    """Its diagonal is 28 284 px: a band of 566 px takes in all of a small object."""
    size = (20_000, 20_000)
    pair = [encode_window(np.ones((40, 30), bool), corner, size) for corner in [(5, 9), (15, 9)]]
    tracemalloc.start()
    assert boundary_iou(*pair) == 30 / 50
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
