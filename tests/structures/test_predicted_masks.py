import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from mmsam.geometry import logits_to_original
from mmsam.structures import predicted_masks
from mmsam.structures.predicted_masks import rles_of_logits
from mmsam.structures.rle import encode_masks

SIZES = {  # image_size, input_size, original_size
    'enlarged': (64, (64, 48), (300, 225)),
    'shrunk': (64, (40, 64), (25, 40)),
    'same': (64, (64, 64), (64, 64)),
    'long page': (128, (128, 9), (501, 37)),
    'one pixel': (64, (64, 64), (1, 1)),
}


def expected_rles(logits, image_size, input_size, original_size):
    logits = logits_to_original(logits, image_size, input_size, original_size)
    return encode_masks((logits[:, 0] > 0).numpy())


def logits_of(kind, cells):
    noise = torch.randn(4, 1, cells, cells)
    if kind == 'noise':
        return noise
    if kind == 'few':
        return noise - 2.5
    logits = torch.full((6, 1, cells, cells), -0.5)
    logits[0, 0, 3:6, 2:4] = 4.0
    logits[1, 0, 0, 0] = logits[2, 0, -1, -1] = logits[3, 0, 2, -1] = 9.0  # corners and padding
    logits[4] = 0.0  # not above the threshold
    logits[5] = 1.0
    return logits


@pytest.mark.parametrize('kind', ['noise', 'few', 'shapes'])
@pytest.mark.parametrize('size', SIZES)
def test_equals_the_masks_of_the_whole_image(size, kind):
    image_size, input_size, original_size = SIZES[size]
    logits = logits_of(kind, image_size // 4)
    expected = expected_rles(logits, image_size, input_size, original_size)
    assert rles_of_logits(logits, input_size, original_size) == expected


def test_bands_join_without_a_seam(monkeypatch):
    logits = logits_of('shapes', 16)
    expected = expected_rles(logits, *SIZES['enlarged'])
    for pixels in (1, 300, 10_000):
        monkeypatch.setattr(predicted_masks, '_PIXELS_AT_ONCE', pixels)
        assert rles_of_logits(logits, *SIZES['enlarged'][1:]) == expected


def test_several_masks_an_object_and_none():
    logits = torch.randn(2, 3, 16, 16)
    sizes = SIZES['shrunk'][1:]
    expected = [rles_of_logits(mask[None], *sizes)[0] for mask in logits.flatten(0, 1)]
    assert rles_of_logits(logits, *sizes) == expected
    assert rles_of_logits(torch.zeros(0, 1, 16, 16), *sizes) == []


def test_half_precision_is_made_whole_first():
    logits = torch.randn(2, 1, 16, 16).bfloat16()
    assert rles_of_logits(logits, *SIZES['same'][1:]) == expected_rles(logits, *SIZES['same'])


def test_small_object_of_a_huge_image():
    logits = torch.full((1, 1, 256, 256), -1.0)
    logits[0, 0, 100:104, 50] = 1.0
    (rle,) = rles_of_logits(logits, (1024, 1024), (20_000, 20_000))
    # low-res cell 50 is about the pixels 50 * 78.125 .. 51 * 78.125, the mask ends halfway beyond
    x, y, width, height = coco_mask.toBbox(rle)
    np.testing.assert_allclose([x + width / 2, y + height / 2], [50.5 * 78.125, 102 * 78.125], 1e-3)
    assert 60 < width < 90 and 290 < height < 330
