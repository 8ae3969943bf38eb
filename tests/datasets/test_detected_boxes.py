import json

import numpy as np
import pytest

from mmsam.datasets.detected_boxes import read_detected_boxes
from mmsam.datasets.readers import problems
from mmsam.errors import DataError

SIZES = {3: (40, 50), 'a': (10, 10)}
LABELS = {7: 0, 2: 1}

GOOD = dict(image_id=3, category_id=7, bbox=[1, 2, 10, 20], score=0.5)


def read(tmp_path, content):
    path = tmp_path / 'results.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_detected_boxes(path, SIZES, LABELS)


def test_boxes_by_hand(tmp_path):
    found = read(
        tmp_path,
        [
            GOOD,
            dict(image_id='a', category_id=2, bbox=[5.5, 0, 2, 3], score=1),
            dict(image_id=3, category_id=2, bbox=[-5, 30, 100, 100], score=0.25, segmentation=[]),
        ],
    )
    np.testing.assert_array_equal(found[3].boxes, [[1, 2, 11, 22], [0, 30, 50, 40]])
    assert found[3].scores.tolist() == [0.5, 0.25] and found[3].labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found['a'].boxes, [[5.5, 0, 7.5, 3]])
    assert found['a'].labels.tolist() == [1]


def test_images_without_a_size_are_left_out_and_counted(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(problems, 'print_log', lambda text, **options: lines.append(text))
    path = tmp_path / 'results.json'
    path.write_text(json.dumps([{**GOOD, 'image_id': 'a'}, GOOD]))
    found = read_detected_boxes(path, {3: (40, 50), 'a': None}, LABELS)
    assert found.keys() == {3} and found[3].scores.tolist() == [0.5]
    what = 'results of other images left out'
    assert lines == [f'{path}: 1 {what} (result 0).']


def test_images_without_a_box(tmp_path):
    found = read(tmp_path, [])
    assert found.keys() == SIZES.keys()
    assert found[3].boxes.shape == (0, 4) and found[3].boxes.dtype == np.float32
    assert found[3].labels.dtype == np.int64 and len(found[3].scores) == 0


@pytest.mark.bad_input(39, 40, 43, 44, 45)
@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('[{"image_id"', 'results.json is not valid JSON'),
        ('[{"score": NaN}]', r'not valid JSON: record\[0\] has NaN, expected'),
        ({'annotations': []}, 'no file of COCO results: expected a list .* got dict'),
        ([3], 'Result 0 of .*: expected an object, got 3'),
        ([GOOD, {**GOOD, 'image_id': '3'}], "Result 1 .* 2 ids .* 'image_id' .3, a., got '3'"),
        ([{**GOOD, 'image_id': [3]}], r"'image_id' .*, got \[3\]"),
        ([{**GOOD, 'category_id': 1}], "'category_id' .7, 2., got 1"),
        ([{**GOOD, 'score': '0.5'}], "a number as 'score', got '0.5'"),
        ([{**GOOD, 'score': None}], "a number as 'score', got None"),
        ([{**GOOD, 'bbox': [1, 2, 3]}], r"x, y, width, height as 'bbox', got \[1, 2, 3\]"),
        ('[{"image_id": 3, "category_id": 7, "bbox": [1e999, 0, 1, 1], "score": 1}]', "'bbox'"),
        ([{**GOOD, 'score': 10**400}], "Result 0 of .*: expected a number as 'score', got 10000"),
        ([{**GOOD, 'bbox': [1, 2, 3, 10**400]}], "Result 0 of .* as 'bbox', got .1, 2, 3, 10000"),
        ([{**GOOD, 'bbox': [-1e300, 2, 1e300, 5]}], 'an area inside its image'),
        ([{**GOOD, 'bbox': [1, 2, 0, 5]}], r'an area inside its image, 50 wide and 40 high'),
        ([{**GOOD, 'bbox': [60, 2, 5, 5]}], r'an area inside its image'),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, content)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match='Cannot read .*none.json: No such file or directory.$'):
        read_detected_boxes(tmp_path / 'none.json', SIZES, LABELS)
