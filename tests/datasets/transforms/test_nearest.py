import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from mmsam.datasets.transforms.nearest import resize_mask


def resized(mask, size):
    out = np.zeros(size, np.uint8)
    resize_mask(mask, out=out)
    return out


@pytest.mark.parametrize('size', [(37, 53), (20, 31), (36, 52), (64, 100), (74, 106), (5, 200)])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_equals_torch_nearest_exact(size, order):
    mask = np.zeros((37, 53), np.uint8, order=order)
    mask[4:30, 11:45] = np.random.default_rng(0).random((26, 34)) < 0.7
    source = torch.from_numpy(mask.copy())[None, None].float()
    expected = interpolate(source, size, mode='nearest-exact')
    np.testing.assert_array_equal(resized(mask, size), expected[0, 0].numpy())


def test_thin_objects_are_kept():
    line = np.zeros((40, 40), np.uint8)
    line[:, 8] = 1  # centres sampled at a fourth: columns 2, 6, 10
    expected = np.zeros((10, 10), np.uint8)
    expected[:, 2] = 1
    np.testing.assert_array_equal(resized(line, (10, 10)), expected)
    dot = np.zeros((40, 40), np.uint8)
    dot[39, 39] = 1
    assert np.argwhere(resized(dot, (10, 10))).tolist() == [[9, 9]]


def test_empty_stays_empty():
    assert not resized(np.zeros((4, 4), np.uint8), (9, 9)).any()
