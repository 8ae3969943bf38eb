import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from two_ranks import fork_two_ranks

from mmsam.rgb_image import ImageReading
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks
from mmsam.visualization.prediction_files import (
    AFTER_FILE,
    BEFORE_FILE,
    TRUTH_FILE,
    PredictionRecorder,
    paired_predictions,
    read_predictions,
    write_predictions,
    write_truth,
)

SIZE = (6, 8)
METAINFO = {'classes': ('stamp', 'seal'), 'category_ids': [7, 9]}


def masks(*columns: int) -> list[dict]:
    pixels = np.zeros((len(columns), *SIZE), np.uint8)
    for mask, width in zip(pixels, columns, strict=True):
        mask[:, :width] = 1
    return encode_masks(pixels)


def sample(path: str, truth: list[int], predicted: list[int]) -> SAMDataSample:
    """Masks that fill so many columns; labels alternate."""
    one = SAMDataSample(
        metainfo=dict(
            img_path=path, img_id=1, ori_shape=SIZE, img_shape=(12, 16),
            image_reading=ImageReading(value_range=(0, 100)),
        )
    )  # fmt: skip
    boxes = torch.tensor([[0.0, 0.0, 2 * width, 12] for width in truth]).reshape(-1, 4)
    one.prompts = InstanceData(boxes=boxes)
    one.gt_instances = InstanceData(
        rles=masks(*truth), labels=torch.arange(len(truth)) % 2, boxes=boxes / 2
    )
    one.pred_instances = InstanceData(
        rles=masks(*predicted), iou_predictions=torch.full((len(predicted),), 0.5)
    )
    return one


def records(*samples):
    recorder = PredictionRecorder(METAINFO)
    recorder.add(samples)
    return recorder.gather(len(samples))


@pytest.fixture
def folder(tmp_path):
    """Two images, one without objects."""
    empty = sample('empty.png', [], [])
    first = records(sample('a "<ü>.png', [2, 4], [1, 3]), empty)
    write_truth(tmp_path, first, METAINFO)
    write_predictions(tmp_path / BEFORE_FILE, first)
    write_predictions(tmp_path / AFTER_FILE, records(sample('a "<ü>.png', [2, 4], [2, 5]), empty))
    return tmp_path


def test_what_was_written_is_read_again(folder):
    images = read_predictions(folder)
    assert list(images) == ['a "<ü>.png', 'empty.png']
    image = images['a "<ü>.png']
    assert (image.truth, image.before, image.after) == (masks(2, 4), masks(1, 3), masks(2, 5))
    assert tuple(image.size) == SIZE
    assert tuple(image.reading.value_range) == (0, 100)
    assert images['empty.png'].truth == []


def test_the_files_are_a_coco_data_set_and_results_for_it(folder):
    coco = COCO(folder / TRUTH_FILE)
    assert {number: one['name'] for number, one in coco.cats.items()} == {7: 'stamp', 9: 'seal'}
    first, second = coco.loadAnns([1, 2])
    assert (first['category_id'], first['bbox'], first['area']) == (7, [0, 0, 2, 6], 12)
    assert (second['category_id'], second['bbox'], second['area']) == (9, [0, 0, 4, 6], 24)
    results = coco.loadRes(str(folder / AFTER_FILE))
    assert [results.annToMask(one).sum() for one in results.anns.values()] == [2 * 6, 5 * 6]
    assert [one['prompt_box'] for one in results.anns.values()] == [[0, 0, 2, 6], [0, 0, 4, 6]]


@pytest.mark.parametrize('left', [None, '[{', '{}', '[{"image_id": "a"}]', '[3]'])
def test_predictions_that_are_damaged_count_as_none(folder, left):
    if left is None:
        (folder / AFTER_FILE).unlink()
    else:
        (folder / AFTER_FILE).write_text(left)
    image = read_predictions(folder)['a "<ü>.png']
    assert (image.before, image.after) == (masks(1, 3), [])


def test_predictions_of_other_objects_count_as_none(folder):
    entries = json.loads((folder / BEFORE_FILE).read_text())
    (folder / BEFORE_FILE).write_text(json.dumps(entries[:1]))
    assert read_predictions(folder)['a "<ü>.png'].before == []


@pytest.mark.parametrize('left', [None, '{', '{"images": 3}', '{"images": [{"id": 1}]}'])
def test_without_the_truth_there_is_nothing(folder, left):
    (folder / TRUTH_FILE).unlink()
    if left is not None:
        (folder / TRUTH_FILE).write_text(left)
    assert read_predictions(folder) == {}


def test_outputs_without_a_mask_per_object_are_left_out():
    wanted = sample('a.png', [2], [1])
    detected = sample('b.png', [2], [1, 1])
    assert [one.path for one in records('no sample', wanted, SAMDataSample(), detected)] == [
        'a.png'
    ]


def test_two_passes_are_paired_and_images_of_one_path_joined():
    first = records(sample('a.png', [1], [2]), sample('b.png', [3], [4]), sample('a.png', [5], [6]))
    second = records(
        sample('a.png', [1], [7]), sample('b.png', [3], [8]), sample('a.png', [5], [0])
    )
    images = paired_predictions(first, second)
    assert images['a.png'].truth == masks(1, 5)
    assert images['a.png'].before == masks(2, 6)
    assert images['a.png'].after == masks(7, 0)
    assert images['b.png'].after == masks(8)


def gather_on_two_ranks(rank, folder):
    """Three images, dealt out in turn; rank 1 gets the first one again."""
    recorder = PredictionRecorder(METAINFO)
    recorder.add([sample(f'{number}.png', [1], [1]) for number in ((0, 2), (1, 0))[rank]])
    paths = [record.path for record in recorder.gather(3)]
    assert paths == ([] if rank else ['0.png', '1.png', '2.png'])


def test_ranks_are_gathered_in_the_order_of_the_data_set(tmp_path):
    fork_two_ranks(gather_on_two_ranks, tmp_path)
