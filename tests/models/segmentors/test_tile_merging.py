import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from mmsam.geometry import Window
from mmsam.models.segmentors.tile_merging import TileLogits, blend_tiles, tiles_of_box

SIZE = (100, 160)
TILES = [Window(top, left, 64, 64) for top in (0, 36) for left in (0, 48, 96)]


@pytest.mark.parametrize(
    ('box', 'expected'),
    [
        ((5, 5, 20, 20), [0]),
        ((0, 70, 10, 100), [3]),
        ((50, 5, 60, 20), [0]),  # in two: 4 px from the edge of the first, 2 from the second's
        ((52, 5, 62, 20), [1]),  # 2 and 4
        ((30, 5, 70, 20), [0, 1]),
        ((20, 5, 140, 20), [0, 1, 2]),
        ((66, 20, 90, 80), [1, 4]),
    ],
)
def test_tiles_of_a_box_by_hand(box, expected):
    assert tiles_of_box(torch.tensor(box, dtype=torch.float32), TILES, SIZE) == expected


def test_chosen_tiles_see_all_of_a_box():
    rng = np.random.default_rng(0)
    for _ in range(200):
        x1, x2 = np.sort(rng.uniform(0, SIZE[1], 2))
        y1, y2 = np.sort(rng.uniform(0, SIZE[0], 2))
        chosen = tiles_of_box(torch.tensor([x1, y1, x2, y2]), TILES, SIZE)
        whole = [
            index
            for index, (top, left, height, width) in enumerate(TILES)
            if top <= y1 and left <= x1 and y2 <= top + height and x2 <= left + width
        ]
        assert (len(chosen) == 1 and chosen[0] in whole) if whole else len(chosen) > 1
        pixels = np.zeros(SIZE, bool)
        pixels[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
        for index in chosen:
            top, left, height, width = TILES[index]
            pixels[top : top + height, left : left + width] = False
        assert not pixels.any()


def exact_logits(mask, window):
    """Of a model that is exact on a tile: positive in the cells of 4 px that the mask fills."""
    top, left, height, width = window
    tile = torch.from_numpy(mask[top : top + height, left : left + width]).float()
    return F.avg_pool2d(tile[None, None], 4)[0, 0] - 0.5


@pytest.mark.parametrize('box', [(20, 20, 140, 80), (0, 0, 160, 100), (24, 40, 120, 60)])
def test_an_exact_model_gives_the_whole_mask(box):
    x1, y1, x2, y2 = box
    mask = np.zeros(SIZE, np.uint8)
    mask[y1:y2, x1:x2] = 1
    parts = [TileLogits(window, exact_logits(mask, window)) for window in TILES]
    merged = coco_mask.decode(blend_tiles(parts, 64, SIZE))
    # a corner between four cells, one of which is positive, is rounded
    assert (merged != mask).sum() <= 4 * 3
    np.testing.assert_array_equal(merged[:, 70:90], mask[:, 70:90])


def test_tiles_that_disagree_are_blended():
    """One says 1, the other -3: they change over where their weights are 3 to 1, at no edge."""
    parts = [
        TileLogits(TILES[0], torch.full((16, 16), 1.0)),
        TileLogits(TILES[1], torch.full((16, 16), -3.0)),
    ]
    merged = coco_mask.decode(blend_tiles(parts, 64, SIZE))
    # in 48..64 the weights are 64 - x and x - 48: 64 - x = 3 (x - 48) at x = 52
    assert merged[:64, :52].all() and not merged[:, 52:].any() and not merged[64:].any()
