import numpy as np
from pycocotools import mask as coco_mask

from mmsam.structures.rle import encode_masks


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
