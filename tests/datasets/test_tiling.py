import numpy as np
import pytest
from PIL import Image

from mmsam.datasets import BoxPromptDataset, EpochIndex
from mmsam.datasets.tiling import Tiling, build_tiling
from mmsam.errors import ConfigError
from mmsam.geometry import Window

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
