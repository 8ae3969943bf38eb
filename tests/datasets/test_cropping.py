import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmsam.datasets.cropping import crop_objects
from mmsam.geometry import Window
from mmsam.structures.rle import encode_masks


def objects_of(boxes, size=(40, 50)):
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return encode_masks(masks), np.array(boxes, np.float32).reshape(-1, 4)


def test_what_a_window_shows_by_hand():
    window = Window(top=10, left=20, height=20, width=15)  # x 20 to 35, y 10 to 30
    rles, boxes = objects_of(
        [
            (22, 12, 30, 20),  # inside
            (30, 5, 40, 15),  # its lower left quarter
            (0, 0, 20, 40),  # beside
            (34, 29, 45, 39),  # one of 110 pixels
            (20, 0, 35, 40),  # half of it, as high as the window
            (20, 30, 35, 40),  # below
        ]
    )
    cropped = crop_objects(rles, boxes, window)
    assert cropped.kept.tolist() == [0, 1, 4]
    assert cropped.boxes.tolist() == [[2, 2, 10, 10], [10, 0, 15, 5], [0, 0, 15, 20]]
    assert cropped.boxes.dtype == np.float32
    for rle, index in zip(cropped.rles, cropped.kept, strict=True):
        expected = coco_mask.decode(rles[index])[10:30, 20:35]
        np.testing.assert_array_equal(coco_mask.decode(rle), expected)


@pytest.mark.parametrize(('width', 'kept'), [(20, [0]), (21, [])])
def test_too_little_of_an_object(width, kept):
    rles, boxes = objects_of([(10, 10, 10 + width, 20)])
    window = Window(0, 0, 40, 12)  # two columns of it, 10 % of 20
    assert crop_objects(rles, boxes, window).kept.tolist() == kept


def test_objects_that_are_kept_however_little_is_seen():
    rles, boxes = objects_of([(10, 10, 31, 20), (39, 39, 40, 40), (11, 20, 40, 21)])
    cropped = crop_objects(rles, boxes, Window(0, 0, 40, 12), always=(0, 1))
    assert cropped.kept.tolist() == [0]  # no pixel of the second, too little of the third
    assert cropped.boxes.tolist() == [[10, 10, 12, 20]]


def test_annotated_boxes_are_only_moved():
    rles, boxes = objects_of([(22, 12, 30, 20), (22, 12, 30, 20), (22, 12, 30, 20)])
    boxes += np.array([[-1, 0, 2.5, 0], [-9, 0, 0, 0], [-20, 0, -15, 0]], np.float32)
    cropped = crop_objects(rles, boxes, Window(10, 20, 20, 15))
    # the second begins at the window's edge; the third is beside its mask and the window
    assert cropped.boxes.tolist() == [[1, 2, 12.5, 10], [0, 2, 10, 10], [2, 2, 10, 10]]


def test_no_object():
    cropped = crop_objects([], np.zeros((0, 4), np.float32), Window(0, 0, 5, 5))
    assert cropped.kept.shape == (0,) and cropped.boxes.shape == (0, 4) and cropped.rles == []
