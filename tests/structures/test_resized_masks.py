import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from mmsam.structures.resized_masks import decode_resized
from mmsam.structures.rle import encode_masks


def resized(mask, size):
    return decode_resized(encode_masks(mask[None]), size)[0]


@pytest.mark.parametrize('size', [(37, 53), (20, 31), (36, 52), (64, 100), (74, 106), (5, 200)])
@pytest.mark.trap(14)
def test_equals_torch_nearest_exact(size):
    mask = np.zeros((37, 53), np.uint8)
    mask[4:30, 11:45] = np.random.default_rng(0).random((26, 34)) < 0.7
    source = torch.from_numpy(mask)[None, None].float()
    expected = interpolate(source, size, mode='nearest-exact')
    np.testing.assert_array_equal(resized(mask, size), expected[0, 0].numpy())


def test_thin_objects_are_kept():
    line = np.zeros((40, 40), np.uint8)
    line[:, 8] = 1  # centres sampled at a fourth: columns 2, 6, 10
    expected = np.zeros((10, 10), np.uint8)
    expected[:, 2] = 1
    np.testing.assert_array_equal(resized(line, (10, 10)), expected)
    slanted = np.zeros((40, 40), np.uint8)
    slanted[[7, 8, 8, 8, 9], [3, 3, 4, 5, 5]] = 1  # none of them at 2, 6 or 10
    assert np.argwhere(resized(slanted, (10, 10))).tolist() == [[1, 0], [2, 0], [2, 1]]
    dot = np.zeros((40, 40), np.uint8)
    dot[39, 39] = 1
    assert np.argwhere(resized(dot, (10, 10))).tolist() == [[9, 9]]


def test_empty_stays_empty():
    assert not resized(np.zeros((4, 4), np.uint8), (9, 9)).any()


def test_several_masks_and_none():
    masks = np.random.default_rng(0).integers(0, 2, (3, 20, 9), dtype=np.uint8)
    np.testing.assert_array_equal(decode_resized(encode_masks(masks), (20, 9)), masks)
    assert decode_resized([], (5, 4)).shape == (0, 5, 4)


def test_full_masks():
    assert resized(np.ones((7, 5), np.uint8), (3, 11)).all()
