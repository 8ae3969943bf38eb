"""Prompts that the data determine, on a segmentor whose answers the tests choose."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tiny_sam import build_segmentor, make_sample

from mmsam.errors import ConfigError, DataError
from mmsam.models.segmentors.prompt_batch import PromptBatch
from mmsam.prompt_sampling import centre_click, jitter_boxes, normals
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks

INPUT = (128, 96)
ORIGINAL = (64, 48)
BOXES = [[8, 16, 40, 48], [40, 64, 72, 112]]
"""In input px; in original px, half of it, the objects fill their boxes."""


def sample_of_boxes() -> SAMDataSample:
    sample = make_sample(INPUT, BOXES, ORIGINAL)
    masks = np.zeros((2, *ORIGINAL), np.uint8)
    for mask, box in zip(masks, BOXES, strict=True):
        x1, y1, x2, y2 = (side // 2 for side in box)
        mask[y1:y2, x1:x2] = 1
    del sample.gt_instances.masks
    sample.gt_instances.rles = encode_masks(masks)
    sample.prompts.seeds = torch.tensor([5, 7])
    return sample


def low_res(box: list[int]) -> torch.Tensor:
    """Logits (1, 32, 32) of a box in input px."""
    logits = torch.full((1, 32, 32), -8.0)
    x1, y1, x2, y2 = (side // 4 for side in box)
    logits[0, y1:y2, x1:x2] = 8
    return logits


class Scripted:
    """Stands in for ``decode_best``: gives chosen boxes' masks, remembers the prompts."""

    def __init__(self, *answers: list[list[int]]) -> None:
        self.answers = list(answers)
        self.prompts: list[PromptBatch] = []

    def __call__(self, image_embedding, prompts):
        self.prompts.append(prompts)
        logits = torch.stack([low_res(box) for box in self.answers[len(self.prompts) - 1]])
        return logits, torch.full((len(prompts), 1), 0.1 * len(self.prompts))


def predict(script: Scripted, **test_cfg) -> SAMDataSample:
    model = build_segmentor(test_cfg=test_cfg)
    model.decode_best = script
    with torch.no_grad():
        (sample,) = model(torch.zeros(1, 3, 128, 128), [sample_of_boxes()], mode='predict')
    return sample


def areas(rles: list) -> list[int]:
    return [int(coco_mask.area(rle)) for rle in rles]


HALF = [[8, 16, 40, 32], [40, 64, 72, 88]]
"""The upper half of each object."""


def truths() -> np.ndarray:
    """The objects (2, h, w) in input px."""
    masks = np.zeros((2, *INPUT), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES, strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def clicks_after(answer: list[list[int]]) -> list[tuple[int, int, int]]:
    """The clicks (x, y, label) on the errors of an answer; enlarging rounds its corners."""
    logits = torch.stack([low_res(box) for box in answer])
    enlarged = torch.nn.functional.interpolate(logits, (128, 128), mode='bilinear')
    predicted = (enlarged[:, 0, : INPUT[0], : INPUT[1]] > 0).numpy()
    return [tuple(centre_click(*pair)) for pair in zip(truths(), predicted, strict=True)]


def given_clicks(prompts: PromptBatch, number: int) -> list[tuple[float, ...]]:
    coords, labels = prompts.click_coords[:, number], prompts.click_labels[:, number, None]
    return [tuple(row) for row in torch.cat([coords, labels], dim=1).tolist()]


def test_clicks_follow_the_error():
    script = Scripted(HALF, BOXES, BOXES, BOXES)
    sample = predict(script, num_clicks=3)
    first, second, third = script.prompts[:3]
    for point, truth, (x1, y1, x2, y2) in zip(first.points[:, 0], truths(), BOXES, strict=True):
        click = centre_click(truth)
        assert point.tolist() == [click.x, click.y]
        assert abs(click.x - (x1 + x2 - 1) / 2) < 1 or abs(click.y - (y1 + y2 - 1) / 2) < 1
    assert first.masks is None
    # the lower half was missed
    assert given_clicks(second, 0) == given_clicks(third, 0) == clicks_after(HALF)
    for (x, y, label), (x1, _, x2, y2), half in zip(clicks_after(HALF), BOXES, HALF, strict=True):
        assert label == 1 and x1 < x < x2 and half[3] < y < y2
    assert given_clicks(third, 1) == clicks_after(BOXES)
    assert torch.equal(second.masks, torch.stack([low_res(box) for box in HALF]))
    found = sample.pred_instances
    full, half = [256, 384], [128, 192]
    by_click = [areas(rles) for rles in zip(*found.click_rles, strict=True)]
    np.testing.assert_allclose(by_click, [half, full, full], atol=4)  # rounded corners
    torch.testing.assert_close(found.click_iou_predictions, torch.tensor([[0.1, 0.2, 0.3]] * 2))
    # the boxes themselves come last
    assert script.prompts[3].kinds is None
    assert 'prompt_points' not in found


def test_an_added_part_gets_a_background_click():
    larger = [[8, 16, 88, 48], BOXES[1]]
    script = Scripted(larger, BOXES, BOXES)
    predict(script, num_clicks=2)
    (x, y, label), _ = given_clicks(script.prompts[1], 0)
    assert label == 0 and 40 < x < 88 and 16 < y < 48


def test_points_as_the_prompt():
    script = Scripted(HALF)
    sample = predict(script, prompt='point')
    np.testing.assert_allclose(areas(sample.pred_instances.rles), [128, 192], atol=4)
    assert 'click_rles' not in sample.pred_instances
    assert script.prompts[0].is_ambiguous().all()
    torch.testing.assert_close(sample.pred_instances.iou_predictions, torch.tensor([0.1, 0.1]))
    assert torch.equal(sample.pred_instances.prompt_points, script.prompts[0].points[:, 0])


def test_boxes_with_noise():
    script = Scripted(BOXES, HALF, BOXES)
    sample = predict(script, box_noise=(0.1, 0.2))
    assert script.prompts[0].boxes.tolist() == BOXES
    for level, ratio in enumerate((0.1, 0.2)):
        noise = normals(torch.tensor([5, 7]), level, 4)
        expected = jitter_boxes(
            torch.tensor(BOXES).float(), torch.tensor([INPUT]), noise, ratio=ratio, max_pixels=99
        )
        assert torch.equal(script.prompts[level + 1].boxes, expected)
        assert (expected - torch.tensor(BOXES)).abs().max() > 1
    assert sample.box_noise == (0.1, 0.2)
    by_level = zip(*sample.pred_instances.noise_rles, strict=True)
    expected = [[128, 192], [256, 384]]
    np.testing.assert_allclose([areas(rles) for rles in by_level], expected, atol=4)


def test_an_image_without_objects():
    model = build_segmentor(test_cfg=dict(prompt='point', num_clicks=2, box_noise=(0.1,)))
    sample = make_sample(INPUT, [])
    sample.prompts.seeds = torch.zeros(0, dtype=torch.int64)
    del sample.gt_instances.masks
    sample.gt_instances.rles = []
    with torch.no_grad():
        (sample,) = model(torch.zeros(1, 3, 128, 128), [sample], mode='predict')
    found = sample.pred_instances
    assert found.rles == found.click_rles == found.noise_rles == []
    assert found.click_iou_predictions.shape == found.prompt_points.shape == (0, 2)


def test_clicks_need_the_objects_of_the_boxes():
    model = build_segmentor(test_cfg=dict(num_clicks=2))
    sample = sample_of_boxes()
    sample.prompts = sample.prompts[:1]
    with pytest.raises(DataError, match='got 1 boxes and 2 objects'):
        model(torch.zeros(1, 3, 128, 128), [sample], mode='predict')


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(clicks=3), "got 'clicks'"),
        (dict(num_clicks=-1), 'num_clicks'),
        (dict(prompt='mask'), "'box' or 'point', got 'mask'"),
        (dict(box_noise=(0.1, 0)), 'box_noise'),
        (dict(box_noise='0.1'), 'box_noise'),
        (dict(box_noise=0.1), 'box_noise'),
    ],
)
def test_a_wrong_test_cfg(config, message):
    with pytest.raises(ConfigError, match=message):
        build_segmentor(test_cfg=config)
