import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, pseudo_collate
from PIL import Image
from pycocotools import mask as mask_api
from torch.utils.data import DataLoader

from mmsam.datasets import BoxPromptDataset, EpochIndex, SeededInfiniteSampler
from mmsam.engine.loader_workers import worker_failures
from mmsam.errors import ConfigError, DataError
from mmsam.registry import DATASETS

BOXES_A = [[10, 5, 20, 25], [30, 40, 70, 60]]


def build(world, reader, **options):
    return BoxPromptDataset(reader=reader, data_root=str(world.root), test_mode=True, **options)


@pytest.mark.parametrize('boxes_from', ['annotation', 'mask'])
@pytest.mark.parametrize('form', ['polygon', 'runs', 'string', 'instance', 'components'])
def test_every_format_gives_the_same_samples(world, form, boxes_from):
    dataset = build(world, world.reader(form), boxes_from=boxes_from)
    assert [Path(dataset[i]['img_path']).name for i in range(len(dataset))] == ['a.png', 'c.png']
    sample = dataset[0]
    assert sample['boxes'].tolist() == BOXES_A
    assert sample['boxes'].dtype == np.float32
    assert (sample['height'], sample['width']) == (60, 80)
    assert sample['labels'].tolist() == [0, 0] and sample['labels'].dtype == np.int64
    for rle, (x1, y1, x2, y2) in zip(sample['rles'], BOXES_A, strict=True):
        expected = np.zeros((60, 80), np.uint8)
        expected[y1:y2, x1:x2] = 1
        np.testing.assert_array_equal(mask_api.decode(rle), expected)


@pytest.mark.parametrize('form', ['polygon', 'instance'])
@pytest.mark.bad_input(17)
def test_empty_images_are_kept_or_skipped(world, form):
    pipeline = [
        {'type': 'LoadSAMImage'},
        {'type': 'ResizeLongestSide', 'image_size': 64},
        {'type': 'DecodeObjectMasks'},
        {'type': 'JitterBoxes'},
        {'type': 'PackSAMInputs'},
    ]
    reader = world.reader(form)
    assert len(build(world, reader)) == 2
    dataset = build(world, reader, empty_images='keep', pipeline=pipeline)
    assert len(dataset) == 3
    sample = dataset[1]['data_samples']
    assert sample.prompts.boxes.shape == (0, 4)
    assert sample.gt_instances.masks.shape == (0, 64, 64)
    assert sample.gt_instances.labels.shape == (0,)


@pytest.mark.parametrize('form', ['polygon', 'instance'])
def test_image_paths_need_no_masks(world, form):
    reader = world.reader(form)
    dataset = build(world, reader, empty_images='keep', indices=[0, 2])
    (world.root / 'masks').mkdir(exist_ok=True)
    for path in (world.root / 'masks').iterdir():
        path.write_bytes(b'broken')
    assert list(dataset.image_paths()) == [f'{world.root}/images/{name}.png' for name in 'ac']


def test_keep_reads_no_mask_before_it_is_needed(world):
    reader = world.reader('instance')
    (world.root / 'masks' / 'c.png').write_bytes(b'broken')
    dataset = build(world, reader, empty_images='keep')
    assert len(dataset[0]['rles']) == 2
    with pytest.raises(DataError, match=r'masks.c\.png'):
        dataset[2]
    with pytest.raises(DataError, match=r'masks.c\.png'):
        build(world, reader, empty_images='skip')


@pytest.mark.bad_input(45)
def test_annotation_boxes_are_kept_and_clipped(world):
    content = world.coco_dict()
    content['annotations'][0]['bbox'] = [-5, 50.5, 200, 30]
    dataset = build(world, world.write_json(content))
    assert dataset[0]['boxes'][0].tolist() == [0, 50.5, 80, 60]
    dataset = build(world, world.write_json(content), boxes_from='mask')
    assert dataset[0]['boxes'].tolist() == BOXES_A


@pytest.mark.parametrize(
    'bbox',
    [
        [10, 10, 0, 5],
        [10, 10, 5, -1],
        [90, 10, 5, 5],
        [10, -9, 5, 5],
        ['nan', 1, 2, 3],
        [1, 1, 'inf', 3],
        None,
        [1, 2, 3],
        'box',
        '1234',
        {'1': 0, '2': 0, '3': 0, '4': 0},
    ],
)
@pytest.mark.bad_input(43, 44)
def test_degenerate_boxes_are_named(world, bbox):
    content = world.coco_dict()
    content['annotations'][1]['bbox'] = bbox
    reader = world.write_json(content)
    with pytest.raises(DataError, match=r'ann\.json.*annotation 2.*a\.png'):
        build(world, reader)
    assert build(world, reader, boxes_from='mask')[0]['boxes'].tolist() == BOXES_A


@pytest.mark.bad_input(13)
def test_missing_images_are_counted_before_training(world):
    reader = world.reader('polygon')
    (world.root / 'images' / 'c.png').unlink()
    with pytest.raises(DataError, match=r'1 of 3 image files are missing: .*c\.png.*data_root'):
        build(world, reader)
    content = world.coco_dict()
    content['images'][2]['file_name'] = 'c\nd.png'
    with pytest.raises(DataError, match=r"missing: '.*c\\nd\.png'; check"):
        build(world, world.write_json(content))


@pytest.mark.parametrize(
    ('size', 'pixel', 'input_size', 'rows', 'columns', 'box'),
    [
        ((1, 1), (0, 0), (64, 64), range(64), range(64), [0, 0, 64, 64]),
        # 64/40 = 1.6: rows 0..2 are 0.5, 1.5, ... of 5 rows by 3/5, columns by 40/64
        ((3, 40), (1, 20), (5, 64), [2], [32, 33], [32, 5 / 3, 33.6, 10 / 3]),
        # 64/300 of a row would vanish; the pixel lies between all centres
        ((1, 300), (0, 150), (1, 64), [0], [32], [32, 0, 151 * 64 / 300, 1]),
    ],
)
@pytest.mark.bad_input(12)
def test_images_of_a_few_pixels(world, size, pixel, input_size, rows, columns, box):
    content = world.coco_dict('runs')
    mask = np.zeros(size, np.uint8)
    mask[pixel] = 1
    number = int(np.flatnonzero(mask.T)[0])
    counts = [number, 1, mask.size - number - 1]
    content['images'][0].update(height=size[0], width=size[1])
    content['annotations'] = content['annotations'][:1]
    content['annotations'][0].update(
        segmentation={'size': list(size), 'counts': counts}, bbox=[pixel[1], pixel[0], 1, 1]
    )
    Image.new('RGB', size[::-1], (10, 20, 30)).save(world.root / 'images' / 'a.png')
    pipeline = [
        {'type': 'LoadSAMImage'},
        {'type': 'ResizeLongestSide', 'image_size': 64},
        {'type': 'DecodeObjectMasks'},
        {'type': 'PackSAMInputs'},
    ]
    results = build(world, world.write_json(content), pipeline=pipeline)[0]
    assert results['inputs'].shape == (3, *input_size)
    assert (results['inputs'] == torch.tensor([10, 20, 30]).reshape(3, 1, 1)).all()
    expected = torch.zeros(1, *input_size, dtype=torch.uint8)
    for row in rows:
        expected[0, row, list(columns)] = 1
    sample = results['data_samples']
    assert torch.equal(sample.gt_instances.masks, expected)
    torch.testing.assert_close(sample.prompts.boxes, torch.tensor([box], dtype=torch.float32))


@pytest.mark.bad_input(49)
def test_no_sample_is_an_error(world):
    content = world.coco_dict()
    content['annotations'] = []
    message = r"images with the reader .*ann_file='ann\.json', got 0: none of the 3 images has an o"
    with pytest.raises(ConfigError, match=message + 'bject of thing'):
        build(world, world.write_json(content))
    content['images'] = []
    with pytest.raises(ConfigError, match="ann_file='ann.json', got 0: it lists no image"):
        build(world, world.write_json(content))


def test_classes_are_chosen_by_metainfo(world):
    content = world.coco_dict()
    content['categories'] = [{'id': 9, 'name': 'late'}, {'id': 7, 'name': 'thing'}]
    content['annotations'][0]['category_id'] = 9
    reader = world.write_json(content)
    dataset = build(world, reader)
    assert dataset.metainfo['classes'] == ('thing', 'late')  # ascending id
    assert dataset.metainfo['category_ids'] == (7, 9)
    assert dataset[0]['labels'].tolist() == [1, 0]
    dataset = build(world, reader, metainfo={'classes': ['late']})
    assert dataset.metainfo['category_ids'] == (9,)
    assert len(dataset) == 1 and dataset[0]['boxes'].tolist() == BOXES_A[:1]
    assert dataset[0]['labels'].tolist() == [0]
    with pytest.raises(ConfigError, match="'thign'.*did you mean 'thing'"):
        build(world, reader, metainfo={'classes': ['thign']})
    with pytest.raises(ConfigError, match='sequence'):
        build(world, reader, metainfo={'classes': 'late'})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'reader': {'type': 'cocco', 'ann_file': 'x'}}, "did you mean 'coco'"),
        ({'reader': {'type': 'coco', 'anfile': 'x'}}, "did you mean 'ann_file'"),
        ({'reader': {'type': 'coco'}}, "needs the option 'ann_file'"),
        (
            {'reader': {'type': 'mask_folder', 'mask_dir': 'masks', 'kind': 'instances'}},
            "did you mean 'instance'",
        ),
        ({'empty_images': 'skp'}, "did you mean 'skip'"),
        ({'boxes_from': 'masks'}, "did you mean 'mask'"),
        ({'data_prefix': {'imgs': 'images'}}, "did you mean 'img'"),
        ({'seed': -1}, 'seed of BoxPromptDataset: .* at least 0, got -1'),
        ({'max_pixels': '5'}, "max_pixels of BoxPromptDataset: .* at least 1, got '5'"),
    ],
)
def test_misspelled_options_fail_when_built(world, options, message):
    with pytest.raises(ConfigError, match=message):
        build(world, **({'reader': world.reader('polygon')} | options))


@pytest.mark.parametrize('form', ['polygon', 'instance'])
@pytest.mark.bad_input(11)
def test_pixels_are_limited_for_images_and_masks(world, form):
    reader = world.reader(form)
    limited = build(world, reader, max_pixels=4800, pipeline=[{'type': 'LoadSAMImage'}])
    assert limited[0]['img'].shape == (60, 80, 3)
    with pytest.raises(DataError, match='max_pixels of BoxPromptDataset'):
        build(world, reader, max_pixels=4799).full_init()
    with pytest.raises(ConfigError, match='max_pixels of BoxPromptDataset: expected at most 5368'):
        build(world, reader, max_pixels=2**29 + 1)


def test_unknown_argument_fails_when_built(world):
    config = {'type': 'BoxPromptDataset', 'reader': world.reader('polygon'), 'ann_file': 'x'}
    with pytest.raises(TypeError, match='ann_file'):
        DATASETS.build(config)


def test_indices_take_a_few(world):
    dataset = build(world, world.reader('polygon'), indices=[1])
    assert len(dataset) == 1 and dataset[0]['img_path'].endswith('c.png')
    with pytest.raises(ConfigError, match='there are 2 samples, from 0 to 1, got 2'):
        build(world, world.reader('polygon'), indices=[0, 2])


def draw(results):
    """A transform that shows which random numbers a pipeline gets."""
    import random

    results['drawn'] = (np.random.random(), random.random(), torch.rand(()).item())
    return results


@pytest.mark.parametrize('form', ['polygon', 'instance'])
def test_boxes_of_a_detector(world, form):
    dataset = build(world, world.reader(form), empty_images='keep')
    ids = [dataset[index]['img_id'] for index in range(3)]
    [category_id] = dataset.metainfo.get('category_ids', [1])
    entry = dict(image_id=ids[1], category_id=category_id, bbox=[30, 20, 20, 10], score=0.5)
    path = world.root / 'results.json'
    path.write_text(json.dumps([entry, {**entry, 'image_id': ids[0], 'score': 0.75}]))
    detected = build(world, world.reader(form), empty_images='keep', prompt_boxes=str(path))
    samples = [detected[index] for index in range(3)]
    assert samples[0]['boxes'].tolist() == [[30, 20, 50, 30]]
    assert samples[1]['boxes'].tolist() == [[30, 20, 40, 30]]  # of an image 40 wide, no object
    assert [sample['prompt_scores'].tolist() for sample in samples] == [[0.75], [0.5], []]
    assert samples[2]['prompt_labels'].shape == (0,) and samples[2]['boxes'].shape == (0, 4)
    assert samples[0]['gt_boxes'].tolist() == BOXES_A and len(samples[0]['rles']) == 2
    with pytest.raises(ConfigError, match="empty_images='keep', got test_mode=True and .*'skip'"):
        build(world, world.reader(form), prompt_boxes=str(path))


@pytest.mark.bad_input(34)
def test_crowds_reach_a_test_whole(world):
    """Tiles and the order of the classes as the config has them, in an image without objects."""
    content = world.coco_dict()
    content['categories'].insert(0, {'id': 3, 'name': 'other'})
    for annotation in content['annotations'][:2]:
        annotation.update(iscrowd=1)
    content['annotations'][1].update(category_id=3)
    options = dict(
        reader=world.write_json(content), data_root=str(world.root), empty_images='keep',
        tiling=dict(tile_size=32, overlap=8), metainfo=dict(classes=('thing', 'other')),
    )  # fmt: skip
    dataset = BoxPromptDataset(**options, test_mode=True)
    image, without = dataset[0], dataset[2]
    assert image['rles'] == [] and len(image['tiles']) > 1
    assert mask_api.toBbox(image['ignored_rles']).tolist() == [[10, 5, 10, 20], [30, 40, 40, 20]]
    assert image['ignored_labels'].tolist() == [0, 1]
    assert 'ignored_rles' not in without
    options['metainfo'] = dict(classes=('other',))
    assert BoxPromptDataset(**options, test_mode=True)[0]['ignored_labels'].tolist() == [0]
    training = BoxPromptDataset(**options)
    assert not any('ignored_rles' in training.get_data_info(i) for i in range(len(training)))


def test_boxes_of_a_detector_with_a_split(world):
    reader = world.reader('polygon')
    path = world.root / 'results.json'
    options = dict(empty_images='keep', split=dict(part='val', ratios=dict(train=0.5, val=0.5)))
    inside = build(world, reader, **options)
    assert 0 < len(inside) < 3
    entry = dict(category_id=7, bbox=[0, 0, 5, 5], score=0.5)
    path.write_text(json.dumps([{**entry, 'image_id': image_id} for image_id in (1, 2, 3)]))
    part = build(world, reader, **options, prompt_boxes=str(path))
    ids = [part[index]['img_id'] for index in range(len(part))]
    assert ids == [inside[index]['img_id'] for index in range(len(inside))]
    assert all(part[index]['boxes'].tolist() == [[0, 0, 5, 5]] for index in range(len(part)))
    path.write_text(json.dumps([{**entry, 'image_id': 4}]))
    with pytest.raises(DataError, match='Result 0 of .*one of the 3 ids .*got 4'):
        build(world, reader, **options, prompt_boxes=str(path))


def test_randomness_depends_on_seed_epoch_and_index_only(world):
    dataset = build(world, world.reader('polygon'), pipeline=[draw])
    samples = {
        key: dataset[EpochIndex(*key)]['drawn']
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 3, 9)]
    }
    assert len({value for drawn in samples.values() for value in drawn}) == 15
    np.random.seed(5), random.seed(5), torch.manual_seed(5)
    before = np.random.random(), random.random(), torch.rand(()).item()
    np.random.seed(5), random.seed(5), torch.manual_seed(5)
    assert dataset[EpochIndex(0, 3, 9)]['drawn'] == samples[0, 3, 9]
    assert before == (np.random.random(), random.random(), torch.rand(()).item())
    assert dataset[0]['drawn'] == samples[0, 0, 0]  # a plain index: own seed, epoch 0
    assert dataset[-1]['drawn'] == samples[1, 0, 0]
    assert ConcatDataset([dataset, dataset])[EpochIndex(2, 3, 9)]['drawn'] == samples[0, 3, 9]


def test_dataset_seed_serves_plain_indices(world):
    reader = world.reader('polygon')
    drawn = [build(world, reader, pipeline=[draw], seed=seed)[0]['drawn'] for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_training_without_epochs_is_warned_about(world):
    dataset = BoxPromptDataset(world.reader('polygon'), str(world.root))
    with pytest.warns(UserWarning, match='SeededInfiniteSampler'):
        dataset[0]


def test_pipeline_without_result_is_an_error(world):
    dataset = BoxPromptDataset(
        world.reader('polygon'), str(world.root), pipeline=[lambda results: None]
    )
    with pytest.raises(DataError, match=r'a\.png'):
        dataset[EpochIndex(0, 0, 0)]


def fails(results):
    raise ValueError('wrong\nshape')


@pytest.mark.parametrize('num_workers', [0, 1])
def test_what_a_transform_raises_names_the_image(world, num_workers):
    dataset = BoxPromptDataset(
        world.write_json(world.coco_dict()), str(world.root), pipeline=[fails], test_mode=True
    )
    with pytest.raises(DataError) as raised, worker_failures():
        next(iter(DataLoader(dataset, num_workers=num_workers)))
    line = fails.__code__.co_firstlineno + 1
    assert str(raised.value) == (
        f'Image {world.root}/images/a.png (id 1, annotation {world.root}/ann.json) failed '
        f'in the pipeline: ValueError: wrong shape ({__file__}:{line}); --debug shows the way '
        'there.'
    )


def first_batches(world, pipeline, num_workers, skip=0, count=4):
    dataset = BoxPromptDataset(
        world.write_json(world.coco_dict()), str(world.root), pipeline=pipeline
    )
    sampler = SeededInfiniteSampler(dataset, seed=3)
    sampler.skip(skip)
    loader = DataLoader(
        dataset, batch_size=2, sampler=sampler, num_workers=num_workers,
        collate_fn=pseudo_collate, multiprocessing_context='fork' if num_workers else None,
    )  # fmt: skip
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


def assert_equal_batches(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for a, b in zip(batch['inputs'], other['inputs'], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(batch['data_samples'], other['data_samples'], strict=True):
            assert a.img_id == b.img_id
            assert torch.equal(a.prompts.boxes, b.prompts.boxes)
            assert torch.equal(a.gt_instances.masks, b.gt_instances.masks)


def test_workers_and_resume_do_not_change_the_samples(world, train_pipeline):
    batches = first_batches(world, train_pipeline, num_workers=0)
    boxes = [tuple(b['data_samples'][0].prompts.boxes.ravel().tolist()) for b in batches]
    assert len(set(boxes)) == 4  # the augmentation differs from epoch to epoch
    assert_equal_batches(batches, first_batches(world, train_pipeline, num_workers=2))
    assert_equal_batches(
        batches[2:], first_batches(world, train_pipeline, num_workers=2, skip=4, count=2)
    )


def test_training_sample_keeps_box_and_mask_together(world, train_pipeline):
    no_jitter = [t for t in train_pipeline if t['type'] != 'JitterBoxes']
    dataset = BoxPromptDataset(world.reader('polygon'), str(world.root), pipeline=no_jitter)
    flipped = set()
    for epoch in range(8):
        sample = dataset[EpochIndex(0, epoch, 0)]['data_samples']
        assert sample.prompts.boxes.shape == (1, 4)
        assert 'boxes' not in sample.gt_instances
        y, x = np.nonzero(sample.gt_instances.masks[0].numpy())
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_allclose(sample.prompts.boxes[0], box, atol=0.51)
        flipped.add(float(sample.prompts.boxes[0, 0]))
    assert len(flipped) > 2  # both objects, both sides


NUCLEI = Path(__file__).resolve().parents[2] / 'data' / 'nuclei'


@pytest.mark.skipif(not NUCLEI.is_dir(), reason='no data/nuclei, which configs/README.md explains')
def test_nuclei_in_both_formats():
    def dataset(reader):
        return BoxPromptDataset(reader, str(NUCLEI), boxes_from='mask', test_mode=True)

    coco = dataset({'type': 'coco', 'ann_file': 'annotations_val.json'})
    folder = dataset(
        {
            'type': 'mask_folder',
            'mask_dir': 'masks_instance_id',
            'kind': 'instance',
            'split': 'val.txt',
        }
    )
    assert len(coco) == len(folder) == 34
    of_image = {sample['img_path']: sample for sample in map(folder.__getitem__, range(34))}
    objects = compared = 0
    for i in range(len(coco)):
        sample = coco[i]
        other = of_image[sample['img_path']]
        ids = np.asarray(Image.open(other['ann_path']))
        shown = np.zeros(ids.shape, ids.dtype)
        covered = np.zeros(ids.shape, int)
        for number, rle in enumerate(sample['rles'], 1):
            mask = mask_api.decode(rle).astype(bool)
            shown[mask] = number
            covered += mask
        np.testing.assert_array_equal(shown, ids)  # an overlap shows the later object
        assert len(other['rles']) == len(sample['rles'])
        if covered.max() == 1:
            assert other['rles'] == sample['rles']
            np.testing.assert_array_equal(other['boxes'], sample['boxes'])
            compared += 1
        objects += len(sample['rles'])
    assert objects == 1758
    assert compared >= 28  # 6 images of the whole set have overlaps
