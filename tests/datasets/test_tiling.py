import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmsam.datasets import BoxPromptDataset, EpochIndex
from mmsam.datasets.readers.rle import boxes_of_rles
from mmsam.datasets.tiling import Tiling, build_tiling, tile_samples
from mmsam.errors import ConfigError
from mmsam.geometry import Window
from mmsam.structures.rle import encode_masks

TILING = {'tile_size': 40, 'overlap': 10}


def test_tiles_by_hand():
    # 80 wide: 0, 30, and the last one ends with the image; 60 high: 0 and 20
    windows = Tiling(40, 10).windows((60, 80))
    assert [(w.top, w.left) for w in windows] == [(t, x) for t in (0, 20) for x in (0, 30, 40)]
    assert {(w.height, w.width) for w in windows} == {(40, 40)}
    assert Tiling(40, 10).windows((25, 40)) == [Window(0, 0, 25, 40)]
    assert [w.left for w in Tiling(40, 0).windows((1, 80))] == [0, 40]
    assert [w.left for w in Tiling(40, 10).windows((1, 41))] == [0, 1]


@pytest.mark.parametrize('size', [(100, 37), (41, 160), (200, 91)])
@pytest.mark.parametrize('overlap', [0, 7, 39])
def test_tiles_cover_the_image_and_overlap(size, overlap):
    seen = np.zeros(size, int)
    windows = Tiling(40, overlap).windows(size)
    for top, left, height, width in windows:
        assert top + height <= size[0] and left + width <= size[1]
        seen[top : top + height, left : left + width] += 1
    assert seen.min() >= 1 and len(set(windows)) == len(windows)
    for starts in ({w.top for w in windows}, {w.left for w in windows}):
        assert all(np.diff(sorted(starts)) <= 40 - overlap)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'tile_size': 40, 'overlap': 40}, '0 <= overlap < tile_size'),
        ({'tile_size': 40.0, 'overlap': 4}, 'whole numbers'),
        ({'tilesize': 40}, "did you mean 'tile_size'"),
        (40, 'tiling must be a dict'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        build_tiling(options)


def dataset(world, form='polygon', **options):
    options.setdefault('pipeline', [{'type': 'LoadSAMImage'}])
    return BoxPromptDataset(world.reader(form), data_root=str(world.root), tiling=TILING, **options)


@pytest.mark.parametrize('form', ['polygon', 'instance'])
def test_tiles_are_the_samples_of_a_training(world, form):
    tiles = dataset(world, form)
    pixels = np.array(Image.open(world.root / 'images' / 'a.png'))
    found = []
    for index in range(len(tiles)):
        results = tiles[EpochIndex(index, 0, 0)]
        top, left, height, width = results['tile']
        assert results['ori_shape'] == results['img_shape'] == (height, width)
        assert len(results['boxes']) == len(results['rles']) == len(results['labels']) > 0
        if results['img_path'].endswith('a.png'):
            expected = pixels[top : top + height, left : left + width]
            np.testing.assert_array_equal(results['img'], expected)
            found.append((top, left, results['boxes'].tolist()))
    # objects at (10, 5) to (20, 25) and (30, 40) to (70, 60)
    assert found == [
        (0, 0, [[10, 5, 20, 25]]),
        (20, 0, [[10, 0, 20, 5], [30, 20, 40, 40]]),
        (20, 30, [[0, 20, 40, 40]]),
        (20, 40, [[0, 20, 30, 40]]),
    ]


def random_objects(rng, height, width):
    """Masks of scattered pixels, thin diagonals and rectangles, four of each."""
    masks = np.zeros((12, height, width), np.uint8)
    for scattered, line, rectangle in masks.reshape(4, 3, height, width):
        scattered[rng.integers(0, height, 60), rng.integers(0, width, 60)] = 1
        columns = np.arange(width)
        rows = rng.integers(height) + columns * rng.uniform(-1, 1)
        line[rows.astype(int) % height, columns] = 1
        y, x = rng.integers(height), rng.integers(width)
        rectangle[y : y + rng.integers(1, 40), x : x + rng.integers(1, 40)] = 1
    return masks


def training_tiles(masks, tiling):
    """The samples of an image whose objects are numbered by their labels."""
    rles = encode_masks(masks)
    info = {'height': masks.shape[1], 'width': masks.shape[2], 'rles': rles}
    info |= {'boxes': boxes_of_rles(rles), 'labels': np.arange(len(masks))}
    return list(tile_samples(info | {'names': [f'object {i}' for i in range(len(masks))]}, tiling))


@pytest.mark.parametrize('seed', range(6))
def test_every_object_is_in_a_tile_of_a_training(seed):
    rng = np.random.default_rng(seed)
    masks = random_objects(rng, *rng.integers(60, 120, 2))
    tiles = training_tiles(masks, Tiling(10, int(rng.integers(0, 4))))
    shown = np.zeros((len(masks), len(tiles)), int)
    is_in = np.zeros((len(masks), len(tiles)), bool)
    for number, sample in enumerate(tiles):
        top, left, height, width = sample['tile']
        shown[:, number] = masks[:, top : top + height, left : left + width].sum(axis=(1, 2))
        is_in[sample['labels'], number] = True
        assert sample['names'] == [f'object {label}' for label in sample['labels']]
    assert is_in.any(axis=1).all()
    # in those that have a tenth of it, or else in the first of those that have most of it
    expected = shown * 10 >= masks.sum(axis=(1, 2))[:, None]
    is_thin = ~expected.any(axis=1)
    expected[is_thin, shown[is_thin].argmax(axis=1)] = True
    assert is_thin.any() and not is_thin.all() and (is_in == expected).all()


def test_an_object_of_which_no_tile_has_much():
    """A line through fourteen tiles, 5 of its 57 pixels in the third."""
    mask = np.zeros((1, 4, 56), np.uint8)
    mask[0, 1] = mask[0, 2, 9] = 1
    tiles = training_tiles(mask, Tiling(4, 0))
    assert [number for number, tile in enumerate(tiles) if tile['rles']] == [2]
    np.testing.assert_array_equal(mask_api.decode(tiles[2]['rles'])[..., 0], mask[0, :, 8:12])
    assert tiles[2]['boxes'].tolist() == tiles[2]['gt_boxes'].tolist() == [[0, 1, 4, 3]]


@pytest.mark.parametrize('form', ['polygon', 'instance'])
def test_empty_tiles_are_kept_if_asked(world, form):
    # of images 60 x 80, 40 x 40 and 50 x 30
    assert len(dataset(world, form, empty_images='keep')) == 6 + 1 + 2


def test_a_tile_goes_through_the_pipeline_of_a_training(world, train_pipeline):
    sample = dataset(world, pipeline=train_pipeline)[EpochIndex(1, 0, 0)]
    assert tuple(sample['inputs'].shape) == (3, 64, 64)
    assert sample['data_samples'].gt_instances.masks.any()


def test_an_image_stays_one_sample_of_a_validation(world):
    load, pack = {'type': 'LoadSAMImage'}, {'type': 'PackSAMInputs'}
    images = dataset(world, pipeline=[load, pack], test_mode=True)
    assert len(images) == 2
    sample = images[0]
    assert tuple(sample['inputs'].shape) == (3, 60, 80)
    assert sample['data_samples'].tiles == Tiling(40, 10).windows((60, 80))
    assert sample['data_samples'].prompts.boxes.tolist() == [[10, 5, 20, 25], [30, 40, 70, 60]]
    resized = [load, {'type': 'ResizeLongestSide', 'image_size': 64}, pack]
    with pytest.raises(ConfigError, match='ResizeLongestSide must not stand'):
        dataset(world, pipeline=resized, test_mode=True)[0]
