from pathlib import Path

import pytest
import torch
from cached_run import FLIPS, IMG_SIZE, TURNS, Build, dataset, entries
from mmengine.registry import DefaultScope

from mmsam.datasets import EpochIndex
from mmsam.datasets.cached_pipeline import check_cacheable
from mmsam.datasets.transforms import loading
from mmsam.errors import ConfigError, DataError
from mmsam.registry import TRANSFORMS

MIRRORED = dict(type='RandomPromptedFlip', prob=1.0)
NEVER = dict(type='RandomPromptedFlip', prob=0.0)


@pytest.mark.parametrize(
    ('turning', 'ways'),
    [
        ((), 1),
        (FLIPS[:1], 2),
        (FLIPS, 4),
        (TURNS, 4),
        ((*FLIPS[:1], *TURNS), 8),
        ((*TURNS, *FLIPS), 8),
        ((MIRRORED, *FLIPS[1:]), 2),
        ((NEVER,), 1),
        ((MIRRORED,), 1),
    ],
)
def test_samples_are_the_same_with_embeddings_in_place_of_images(
    data, turning, ways, tmp_path, monkeypatch
):
    """Over epochs that draw every orientation; encoded alone, images have the same bits."""
    plain, cached = dataset(data, turning), dataset(data, turning)
    build = Build(tmp_path)
    assert build.use(cached) == len(entries(tmp_path)) == ways * len(plain)
    indices = [EpochIndex(0, epoch, 3) for epoch in range(24)] + [EpochIndex(1, 5, 3)]
    expected = [plain[index] for index in indices]
    monkeypatch.setattr(loading, 'read_rgb', None)  # no image is read any more
    for index, sample in zip(indices, expected, strict=True):
        assert_equal_samples(cached[index], sample, build.model)
    assert len({sample['inputs'].numpy().tobytes() for sample in expected[:24]}) == ways


def test_tiles_of_a_training_are_encoded_each(data, tmp_path):
    tiling = dict(tile_size=80, overlap=40)
    plain, cached = dataset(data, tiling=tiling), dataset(data, tiling=tiling)
    build = Build(tmp_path)
    assert build.use(cached) == 2 * len(plain) > 2 * 5
    for place in range(len(plain)):
        index = EpochIndex(place, 0, 3)
        assert_equal_samples(cached[index], plain[index], build.model)


def assert_equal_samples(sample: dict, expected: dict, model) -> None:
    assert_equal_data(sample['data_samples'], expected['data_samples'])
    padded = model.data_preprocessor({'inputs': [expected['inputs']]})['inputs']
    with torch.no_grad():
        embedding = model.encode_images(padded)[0]
    assert torch.equal(sample['image_embeddings'], embedding.half())


def assert_equal_data(sample, expected) -> None:
    assert sample.metainfo_keys() == expected.metainfo_keys()
    for key in expected.metainfo_keys():
        assert sample.get(key) == expected.get(key), key
    for part in ('prompts', 'gt_instances'):
        ours, theirs = sample.get(part), expected.get(part)
        assert set(ours.keys()) == set(theirs.keys())
        for key in theirs.keys():
            assert torch.equal(ours[key], theirs[key]), (part, key)


@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_validation_reads_embeddings_and_keeps_its_masks_as_rle(data, split, tmp_path):
    steps = ('LoadSAMImage', dict(type='ResizeLongestSide', image_size=IMG_SIZE), 'PackSAMInputs')
    pipeline = [step if isinstance(step, dict) else dict(type=step) for step in steps]
    plain, cached = (
        dataset(data, split=split, pipeline=pipeline, test_mode=True) for _ in range(2)
    )
    assert Build(tmp_path).use(cached) == 3
    for index in range(3):
        ours, theirs = cached[index]['data_samples'], plain[index]['data_samples']
        assert ours.gt_instances.rles == theirs.gt_instances.rles
        assert torch.equal(ours.prompts.boxes, theirs.prompts.boxes)
        assert ours.image_reading == theirs.image_reading
        assert cached[index].keys() == {'image_embeddings', 'data_samples'}


def test_an_image_of_another_size_than_annotated_is_seen_when_it_is_read(data, tmp_path):
    """The annotation may have changed since the image was encoded."""
    cached = dataset(data)
    build = Build(tmp_path)
    build.use(cached)
    other = dataset(data)
    other.full_init()
    info = other.get_data_info(0)
    read = other.get_data_info
    other.get_data_info = lambda idx: {**read(idx), 'height': 2 * info['height']}
    assert build.use(other) == 0
    with pytest.raises(DataError, match=f'{info["img_path"]} is .* its annotation .* is for'):
        other[EpochIndex(0, 0, 0)]


def kinds(*names: str) -> list[type]:
    with DefaultScope.overwrite_default_scope('mmsam'):
        return [TRANSFORMS.get(name) for name in names]


@pytest.mark.parametrize('name', ['PhotoMetricDistortion', 'RandomGrayscale', 'RandomScaleCrop'])
def test_what_changes_pixels_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f'embedding_cache: {name} may give .* set embedding_cac'):
        check_cacheable(kinds('LoadSAMImage', name, 'PackSAMInputs'))


@pytest.mark.parametrize(
    'names',
    [
        ('ResizeLongestSide', 'PackSAMInputs'),
        ('LoadSAMImage', 'ResizeLongestSide'),
        ('LoadSAMImage', 'RandomPromptedFlip', 'ResizeLongestSide', 'PackSAMInputs'),
        ('LoadSAMImage', 'ResizeLongestSide', 'ResizeLongestSide', 'PackSAMInputs'),
        ('LoadSAMImage', 'LoadSAMImage', 'PackSAMInputs'),
        (),
    ],
)
def test_another_order_is_refused(names):
    with pytest.raises(ConfigError, match=f'got {", ".join(names) or "none"}.'):
        check_cacheable(kinds(*names))


def test_a_transform_of_ones_own_is_refused(data):
    class Load(loading.LoadSAMImage):
        """May do anything."""

    with pytest.raises(ConfigError, match='Load may give an image other pixels'):
        check_cacheable([Load, *kinds('PackSAMInputs')])


def test_the_images_are_found_without_reading_a_mask(data, monkeypatch):
    cached = dataset(data)
    cached.full_init()
    monkeypatch.setattr(cached, '_annotation', None)
    views = list(cached.image_views())
    assert [Path(view.path).name for view, _ in views] == [
        f'train_{number}.png' for number in (1, 2, 4, 5, 6)
    ]
