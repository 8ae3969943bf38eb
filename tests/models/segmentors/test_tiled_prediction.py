import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tiny_sam import build_segmentor, make_sample

from mmsam.errors import ConfigError
from mmsam.geometry import Window
from mmsam.models.segmentors.prompted_prediction import TestPrompts
from mmsam.models.segmentors.tiled_prediction import predict_tiled_image
from mmsam.rgb_image import resize_rgb
from mmsam.structures.rle import move_rle

SIZE = (100, 160)
TILES = [Window(top, left, 64, 64) for top in (0, 36) for left in (0, 48, 96)]
BOXES = [[5, 5, 20, 20], [70, 44, 90, 64], [10, 10, 150, 90], [0, 70, 30, 100]]


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return build_segmentor(64, test_cfg=dict(box_noise=(0.1,))).eval()


def image_of(size=SIZE):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))


def sample_of(boxes=BOXES, size=SIZE, **metainfo):
    sample = make_sample(size, boxes, **metainfo)
    sample.prompts.seeds = torch.arange(len(boxes))
    return sample


@torch.no_grad()
def predict(model, image, sample):
    data = model.data_preprocessor({'inputs': [image], 'data_samples': [sample]})
    return model(**data, mode='predict')[0].pred_instances


def test_an_object_within_a_tile_is_that_of_the_tile_alone(model):
    found = predict(model, image_of(), sample_of(tiles=TILES))
    for index, (top, left) in ((0, (0, 0)), (1, (36, 48))):
        box = torch.tensor(BOXES[index]) - torch.tensor([left, top, left, top])
        tile = image_of()[:, top : top + 64, left : left + 64]
        alone = predict(model, tile, sample_of([box.tolist()], (64, 64)))
        assert found.rles[index] == move_rle(alone.rles[0], (top, left), SIZE)
        torch.testing.assert_close(found.iou_predictions[index], alone.iou_predictions[0])
    assert all(rle['size'] == list(SIZE) for rle in found.rles)


def test_an_image_of_one_tile_is_predicted_as_without_tiles(model):
    boxes, size = [[5, 5, 20, 20], [0, 10, 90, 60]], (70, 100)  # made smaller for the model
    tiled = sample_of(boxes, size, tiles=[Window(0, 0, *size)])
    found = predict(model, image_of(size), tiled)
    pixels = resize_rgb(image_of(size).permute(1, 2, 0).numpy(), (45, 64))
    scale = torch.tensor([64 / 100, 45 / 70] * 2)
    whole = make_sample((45, 64), torch.tensor(boxes) * scale, size)
    whole.prompts.seeds = torch.arange(2)
    expected = predict(model, torch.from_numpy(pixels).permute(2, 0, 1), whole)
    assert found.rles == expected.rles
    torch.testing.assert_close(found.iou_predictions, expected.iou_predictions)
    assert [len(rles) for rles in found.noise_rles] == [1, 1]
    assert found.noise_rles[0][0] != found.rles[0]


class ExactSAM:
    """Fills the cells of each box, as if that were right: what is tested is the rest."""

    image_size = 64

    def data_preprocessor(self, data):
        return {'inputs': torch.stack(data['inputs'])}

    def encode_images(self, inputs):
        return inputs

    def decode_best(self, embeddings, prompts):
        centres = torch.arange(16) * 4 + 2.0
        x1, y1, x2, y2 = prompts.boxes.T[..., None]
        rows, columns = (centres > y1) & (centres < y2), (centres > x1) & (centres < x2)
        inside = rows[:, :, None] & columns[:, None]
        return inside[:, None].float() - 0.5, torch.ones(len(prompts), 1)


def test_an_exact_model_gives_whole_boxes_without_seams():
    boxes = [[4, 4, 20, 16], [8, 12, 152, 96], [0, 0, 160, 100], [40, 8, 56, 60]]
    sample = sample_of(boxes, tiles=TILES)
    predict_tiled_image(ExactSAM(), image_of(), sample, TestPrompts())
    found = sample.pred_instances
    for (x1, y1, x2, y2), rle in zip(boxes, found.rles, strict=True):
        expected = np.zeros(SIZE, np.uint8)
        expected[y1:y2, x1:x2] = 1
        # a corner between four cells, one of which is positive, is rounded
        wrong = coco_mask.decode(rle) != expected
        assert wrong.sum() <= 4 * 3
        assert not wrong[y1 + 4 : y2 - 4].any() and not wrong[:, x1 + 4 : x2 - 4].any()
    assert found.iou_predictions.tolist() == pytest.approx([1.0] * 4)


def test_no_box(model):
    found = predict(model, image_of(), sample_of([], tiles=TILES))
    assert found.rles == [] and found.iou_predictions.shape == (0,) and found.noise_rles == []


def test_wrong_uses(model):
    clicks = build_segmentor(64, test_cfg=dict(num_clicks=2))
    with pytest.raises(ConfigError, match='tiles are predicted with boxes only'):
        predict(clicks, image_of(), sample_of(tiles=TILES))
    resized = sample_of(tiles=TILES)
    resized.set_metainfo(dict(ori_shape=(200, 320)))
    with pytest.raises(ConfigError, match='does not resize images with tiles'):
        predict(model, image_of(), resized)
