"""All augmentations in one pipeline, mmseg's and mmcv's own among them."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmsam.datasets import BoxPromptDataset, EpochIndex
from mmsam.datasets.readers.rle import boxes_of_rles
from mmsam.registry import TRANSFORMS
from mmsam.structures.rle import encode_masks

PIPELINE = [
    {'type': 'LoadSAMImage'},
    {'type': 'RandomScaleCrop', 'image_size': 64, 'scale_range': (0.5, 2.0)},
    {'type': 'DecodeObjectMasks'},
    {'type': 'RandomPromptedFlip'},
    {'type': 'RandomPromptedRotate90'},
    {'type': 'PhotoMetricDistortion'},
    {'type': 'RandomGrayscale', 'prob': 0.3, 'keep_channels': True},
    {'type': 'JitterBoxes', 'ratio': 0.0},
    {'type': 'RandomPrompts', 'box': 1, 'point': 1},
    {'type': 'PackSAMInputs'},
]


@pytest.fixture
def dataset(world):
    reader = world.reader('polygon')
    return BoxPromptDataset(reader=reader, data_root=str(world.root), pipeline=PIPELINE)


def test_prompts_and_masks_fit_and_the_sample_is_a_function_of_seed_epoch_and_index(dataset):
    images = []
    for epoch in range(12):
        sample = dataset[EpochIndex(0, epoch, 5)]
        image, prompts = sample['inputs'], sample['data_samples'].prompts
        masks = sample['data_samples'].gt_instances.masks
        assert image.dtype == torch.uint8 and tuple(image.shape[1:]) == masks.shape[1:]
        boxes = boxes_of_rles(encode_masks(masks.numpy()))
        np.testing.assert_allclose(prompts.boxes, boxes, atol=1.0)
        for (x, y), mask in zip(prompts.points[:, 0].long().tolist(), masks, strict=True):
            assert mask[y, x] == 1
        again = dataset[EpochIndex(0, epoch, 5)]
        assert torch.equal(again['inputs'], image)
        assert torch.equal(again['data_samples'].prompts.boxes, prompts.boxes)
        assert torch.equal(again['data_samples'].gt_instances.masks, masks)
        images.append(image)
    assert not any(torch.equal(images[0], image) for image in images[1:])


def test_hue_is_turned_as_often_in_rgb_as_in_bgr():
    """mmseg's transform takes BGR: in RGB a hue turns the other way, which is as likely."""
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 200
    transform = TRANSFORMS.build({'type': 'PhotoMetricDistortion', 'brightness_delta': 0})
    np.random.seed(0)
    colours = np.array([transform({'img': red})['img'][0, 0] for _ in range(2000)], int)
    greenish, bluish = (
        (colours[:, 1] > colours[:, 2]).mean(),
        (colours[:, 2] > colours[:, 1]).mean(),
    )
    assert abs(greenish - bluish) < 0.05 and greenish > 0.2
    assert (colours[:, 0] >= colours[:, 1:].max(axis=1)).all()  # at most 18 of 180: still a red


def test_gray_keeps_three_channels(world):
    pixels = np.array(Image.open(world.root / 'images' / 'a.png'))
    gray = TRANSFORMS.build({'type': 'RandomGrayscale', 'prob': 1.0, 'keep_channels': True})
    found = gray({'img': pixels})['img']
    means = np.dstack([pixels.mean(axis=2)] * 3)
    assert np.abs(found - means).max() <= 1 and (np.ptp(found, axis=2) == 0).all()
    assert found.dtype == np.uint8
