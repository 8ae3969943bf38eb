"""Formats of boxes, tried on a page of 12 rectangles whose boxes are known."""

import numpy as np
import pytest

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import DataError

HEIGHT, WIDTH = 60, 80
CORNERS = [
    (x, y, x + 4 + 3 * column, y + 6 + row)
    for row, y in enumerate((3, 22, 41))
    for column, x in enumerate((2, 20, 40, 60))
]
"""Of the rectangles, xyxy; some lie in each quarter of the image."""


def xywh(x1, y1, x2, y2):
    return [x1, y1, x2 - x1, y2 - y1]


def xyxy(x1, y1, x2, y2):
    return [x1, y1, x2, y2]


def centre(x1, y1, x2, y2):
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


def share(form):
    def of_image(*box):
        a, b, c, d = form(*box)
        return [a / WIDTH, b / HEIGHT, c / WIDTH, d / HEIGHT]

    return of_image


def write(world, bboxes, corners=CORNERS):
    content = world.coco_dict()
    content['annotations'] = [
        {
            'id': number,
            'image_id': 1,
            'category_id': 7,
            'bbox': bbox,
            'segmentation': [[x1, y1, x2, y1, x2, y2, x1, y2]],
        }
        for number, (bbox, (x1, y1, x2, y2)) in enumerate(zip(bboxes, corners, strict=True))
    ]
    return world.write_json(content)


def boxes(world, reader, **options):
    dataset = BoxPromptDataset(reader, str(world.root), test_mode=True, **options)
    return dataset[0]['boxes'].tolist()


@pytest.mark.parametrize(
    ('form', 'name'),
    [
        (xyxy, '(x1, y1, x2, y2) in pixels'),
        (centre, '(centre x, centre y, width, height) in pixels'),
        (share(xywh), '(x, y, width, height) in shares of the image'),
        (share(xyxy), '(x1, y1, x2, y2) in shares of the image'),
        (share(centre), '(centre x, centre y, width, height) in shares of the image'),
    ],
)
@pytest.mark.bad_input(46, 47)
def test_other_formats_are_recognised(world, form, name):
    reader = write(world, [form(*box) for box in CORNERS])
    with pytest.raises(DataError) as caught:
        boxes(world, reader)
    text = str(caught.value)
    assert text.startswith(f'The boxes in {world.root}/ann.json look like {name}: 100% of 12 ')
    assert "boxes_from='mask'" in text
    # which are not read then
    assert boxes(world, reader, boxes_from='mask') == [list(box) for box in CORNERS]


@pytest.mark.bad_input(46)
def test_corners_that_stay_inside_the_image_are_recognised(world):
    """Read as COCO's, none of these reaches the image's edge or is turned inside out."""
    corners = CORNERS[:2]
    reader = write(world, [xyxy(*box) for box in corners], corners)
    assert all(x1 + x2 < WIDTH and y1 + y2 < HEIGHT for x1, y1, x2, y2 in corners)
    with pytest.raises(DataError, match=r'look like \(x1, y1, x2, y2\) in pixels: 100% of 2 '):
        boxes(world, reader)


@pytest.mark.bad_input(46, 47)
def test_the_right_format_is_accepted(world):
    reader = write(world, [xywh(*box) for box in CORNERS])
    assert boxes(world, reader) == [list(box) for box in CORNERS]


def test_boxes_from_the_corner_mean_the_same_in_two_formats(world):
    reader = write(world, [[0, 0, 30, 20]], [(0, 0, 30, 20)])
    assert boxes(world, reader) == [[0, 0, 30, 20]]


def test_loose_boxes_are_accepted(world):
    """Around each object as much again on every side, as a careless user draws them."""
    loose = np.array([[2 * a - c, 2 * b - d, 2 * c - a, 2 * d - b] for a, b, c, d in CORNERS])
    reader = write(world, [xywh(*box) for box in loose.tolist()])
    expected = loose.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    assert boxes(world, reader) == expected.tolist()


@pytest.mark.parametrize(
    ('wrong', 'right', 'refused'),
    [(12, 0, True), (11, 1, False), (6, 6, False), (1, 11, False)],
)
def test_a_few_wrong_boxes_are_no_other_format(world, wrong, right, refused):
    forms = [xyxy] * wrong + [xywh] * right
    # from the far end, where no box fits in both formats
    bboxes = [form(*box) for form, box in zip(forms, CORNERS[::-1], strict=True)]
    reader = write(world, bboxes, CORNERS[::-1])
    if refused:
        with pytest.raises(DataError, match='look like'):
            boxes(world, reader)
    else:
        assert len(boxes(world, reader)) == 12


def test_boxes_that_are_none_are_named_themselves(world):
    reader = write(world, [None] * 11 + [xywh(*CORNERS[11])])
    with pytest.raises(DataError, match='annotation 0 of image .* has no box'):
        boxes(world, reader)
    reader = write(world, [None] * 12)
    with pytest.raises(DataError, match='annotation 0 of image .* has no box'):
        boxes(world, reader)
