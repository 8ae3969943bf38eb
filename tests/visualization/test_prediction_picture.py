import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from mmsam.structures import SAMDataSample
from mmsam.visualization import draw_objects, draw_prediction, draw_sample
from mmsam.visualization.prediction_picture import GAP, PANEL_MIN_WIDTH, TITLE_HEIGHT

BOXES, TRUTH, PREDICTION, ERRORS = range(4)


def rectangle(size, x1, y1, x2, y2):
    mask = np.zeros(size, np.uint8, order='F')
    mask[y1:y2, x1:x2] = 1
    return mask_utils.encode(mask)


def panel(picture, index, size):
    """The pixels of one panel of a picture whose panels stand in a row."""
    height, width = size
    left = GAP + index * (max(width, PANEL_MIN_WIDTH) + GAP)
    return picture[TITLE_HEIGHT : TITLE_HEIGHT + height, left : left + width].astype(int)


@pytest.fixture
def shifted():
    """A black page of 100 x 80 px with one 20 x 20 object, predicted 4 px too far right.

    It is enlarged five times, to panels of 500 x 400 px.
    """
    size = (100, 80)
    return draw_prediction(
        np.zeros((*size, 3), np.uint8),
        np.array([[10, 20, 30, 40]], np.float32),
        [rectangle(size, 10, 20, 30, 40)],
        [rectangle(size, 14, 20, 34, 40)],
    )


def test_the_panels_stand_in_a_row(shifted):
    assert shifted.dtype == np.uint8
    assert shifted.shape == (500 + TITLE_HEIGHT + GAP, 4 * (400 + GAP) + GAP, 3)


def test_the_box_line_runs_along_the_pixels_inside_the_box(shifted):
    boxes = panel(shifted, BOXES, (500, 400)).sum(axis=2)
    row = boxes[150]
    assert row[50] > 0 and row[149] > 0
    assert row[:48].sum() == 0 and row[54:146].sum() == 0 and row[152:].sum() == 0
    column = boxes[:, 100]
    assert column[100] > 0 and column[199] > 0
    assert column[:98].sum() == 0 and column[104:196].sum() == 0 and column[202:].sum() == 0


def test_points_are_drawn_instead_of_the_boxes(monkeypatch):
    """On pixel (30, 40), which becomes 150 to 154, 200 to 204."""
    words = []
    put_text = cv2.putText
    monkeypatch.setattr(cv2, 'putText', lambda *args: (words.append(args[1]), put_text(*args)))
    size = (100, 80)
    rle = rectangle(size, 10, 20, 50, 60)
    boxes, points = np.array([[10, 20, 50, 60]], np.float32), np.array([[30, 40]], np.float32)
    picture = draw_prediction(np.zeros((*size, 3), np.uint8), boxes, [rle], [rle], points)
    drawn = np.argwhere(panel(picture, BOXES, (500, 400)).any(axis=2))
    assert np.abs(drawn.mean(axis=0) - (202, 152)).max() < 0.1
    assert np.ptp(drawn, axis=0).max() < 20
    assert words[0] == '1 prompt point'


def test_masks_lie_where_they_belong_and_keep_their_colour(shifted):
    truth = panel(shifted, TRUTH, (500, 400))
    prediction = panel(shifted, PREDICTION, (500, 400))
    assert truth[150, 60].any() and not prediction[150, 60].any()
    assert prediction[150, 160].any() and not truth[150, 160].any()
    assert not truth[150, 47].any() and not truth[95, 100].any() and not truth[205, 100].any()
    assert (truth[150, 100] == prediction[150, 100]).all()


def test_errors_are_told_apart(shifted):
    errors = panel(shifted, ERRORS, (500, 400))
    red, green, blue = range(3)
    assert errors[150, 52:68].argmax(axis=1).tolist() == [blue] * 16  # missed: x 10..14
    assert errors[150, 72:148].argmax(axis=1).tolist() == [green] * 76  # found: x 14..30
    assert errors[150, 152:168].argmax(axis=1).tolist() == [red] * 16  # added: x 30..34
    assert not errors[150, 172:].any() and not errors[:98].any()


def test_the_title_gives_the_mean_iou(monkeypatch):
    words = []
    put_text = cv2.putText
    monkeypatch.setattr(cv2, 'putText', lambda *args: (words.append(args[1]), put_text(*args)))
    size = (50, 40)
    draw_prediction(
        np.zeros((*size, 3), np.uint8),
        np.array([[0, 0, 20, 20], [20, 20, 40, 40]], np.float32),
        [rectangle(size, 0, 0, 20, 20), rectangle(size, 20, 20, 40, 40)],
        # half of the first object, nothing of the second
        [rectangle(size, 0, 0, 10, 20), rectangle(size, 0, 0, 0, 0)],
    )
    assert words[:3] == ['2 prompt boxes', 'truth', 'prediction, mean IoU 0.25']


def test_a_small_object_inside_a_large_one_stays_visible():
    size = (100, 80)
    small, large = rectangle(size, 30, 30, 40, 40), rectangle(size, 10, 10, 70, 90)
    boxes = np.array([[30, 30, 40, 40], [10, 10, 70, 90]], np.float32)
    picture = draw_prediction(np.zeros((*size, 3), np.uint8), boxes, [small, large], [small, large])
    truth = panel(picture, TRUTH, (500, 400))
    assert (truth[175, 175] != truth[250, 300]).any()
    assert (truth[250, 300] == truth[100, 100]).all()


def test_a_large_page_is_shrunk_and_its_thin_ink_stays_visible():
    size = (3072, 2048)
    ink = np.zeros(size, np.uint8, order='F')
    ink[1000:2000, 1000:1200:6] = 1  # 1-px strokes; the panel shows 6 px as one
    rle = mask_utils.encode(ink)
    boxes = np.array([[1000, 1000, 1200, 2000]], np.float32)
    picture = draw_prediction(np.full((*size, 3), 255, np.uint8), boxes, [rle], [rle])
    truth = panel(picture, TRUTH, (512, 341))
    assert picture.shape == (512 + TITLE_HEIGHT + GAP, 4 * (341 + GAP) + GAP, 3)
    assert truth[170:330, 170:196].mean() < 250
    assert (truth[:160] == 255).all() and (truth[:, 205:] == 255).all()


def test_landscape_panels_stand_two_by_two():
    image = np.zeros((256, 384, 3), np.uint8)
    picture = draw_prediction(image, np.zeros((0, 4), np.float32), [], [])
    assert picture.shape == (2 * (512 + TITLE_HEIGHT + GAP), 2 * (768 + GAP) + GAP, 3)


def test_an_image_without_objects_is_shown_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (128, 100, 3), np.uint8)
    picture = draw_prediction(image, np.zeros((0, 4), np.float32), [], [])
    for index in (BOXES, TRUTH, PREDICTION):
        assert (panel(picture, index, (512, 400))[1::4, 2::4] == image).all()


def test_the_image_handed_in_is_not_drawn_on():
    image = np.full((60, 50, 3), 7, np.uint8)
    rle = rectangle((60, 50), 5, 5, 20, 20)
    draw_prediction(image, np.array([[5, 5, 20, 20]], np.float32), [rle], [rle])
    assert (image == 7).all()


def test_every_object_needs_a_prediction():
    rle = rectangle((60, 50), 5, 5, 20, 20)
    with pytest.raises(ValueError):
        draw_prediction(np.zeros((60, 50, 3), np.uint8), np.ones((1, 4)), [rle], [])


@pytest.mark.parametrize('decoded', [True, False])
def test_a_sample_shows_each_object_its_own_prompt_and_its_mask(decoded):
    """A black page of 100 x 80 px, enlarged five times: a box, a point and a rough mask."""
    masks = torch.zeros(3, 100, 80, dtype=torch.uint8)
    masks[0, 10:20, 10:30] = masks[1, 40:60, 40:60] = masks[2, 80:88, 20:28] = 1
    sample = SAMDataSample()
    sample.prompts = InstanceData(
        boxes=torch.tensor([[10.0, 10, 30, 20], [40, 40, 60, 60], [20, 80, 28, 88]]),
        kinds=torch.arange(3),
        points=torch.full((3, 1, 2), 50.0),
        masks=torch.zeros(3, 25, 20),
    )
    sample.prompts.masks[2, 20:22, 5:7] = 0.6
    if decoded:
        sample.gt_instances = InstanceData(masks=masks)
    else:  # of an image twice as large
        rles = [rectangle((200, 160), 20, 20, 60, 40), rectangle((200, 160), 80, 80, 120, 120)]
        sample.gt_instances = InstanceData(rles=[*rles, rectangle((200, 160), 40, 160, 56, 176)])
    picture = draw_sample(torch.zeros(3, 100, 80, dtype=torch.uint8), sample)
    prompts, truth = (panel(picture, index, (500, 400)) for index in range(2))
    assert prompts[75, 50].any() and not prompts[75, 75].any()  # the line of a box, not its inside
    assert not prompts[225, 225].any() and prompts[252, 252].any()  # a dot on pixel (50, 50)
    assert prompts[420, 120].any() and not prompts[420, 142].any()  # the rough mask
    assert truth[75, 75].any() and truth[225, 225].any() and truth[420, 120].any()
    assert (prompts[420, 120] == truth[420, 120]).all()


def test_a_sample_without_objects():
    sample = SAMDataSample()
    sample.prompts = InstanceData(boxes=torch.zeros(0, 4))
    sample.gt_instances = InstanceData(masks=torch.zeros(0, 100, 80, dtype=torch.uint8))
    image = torch.full((3, 100, 80), 7, dtype=torch.uint8)
    assert (panel(draw_sample(image, sample), 1, (500, 400)) == 7).all()


def test_chosen_objects_are_shown_whole_and_close_by():
    """100 x 80 px, 5 times as large; around the second object rows 4 to 37, columns 0 to 30."""
    size = (100, 80)
    rles = [rectangle(size, 70, 70, 78, 78), rectangle(size, 10, 20, 15, 22)]
    boxes = np.array([[70, 70, 78, 78], [10, 20, 15, 22]], np.float32)
    picture = draw_objects(np.zeros((*size, 3), np.uint8), boxes, rles, [1])
    whole = panel(picture, 0, (500, 400))
    assert whole[100, 60].any() and not whole[340:].any()
    left = GAP + 400 + GAP
    close = picture[TITLE_HEIGHT : TITLE_HEIGHT + 34 * 15, left : left + 31 * 15]
    drawn = np.argwhere(close.any(axis=2))
    assert np.abs(drawn.min(axis=0) - (16 * 15, 10 * 15)).max() <= 1
    assert np.abs(drawn.max(axis=0) - (18 * 15, 15 * 15)).max() <= 1


def test_without_a_chosen_object_the_image_is_shown():
    image = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    picture = draw_objects(image, np.zeros((0, 4)), [], [])
    np.testing.assert_array_equal(panel(picture, 0, (500, 400))[::5, ::5], image)
    np.testing.assert_array_equal(panel(picture, 1, (500, 400))[::5, ::5], image)
