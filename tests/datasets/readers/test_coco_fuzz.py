"""Mutated COCO files: each is refused by a DataError, or gives masks of its images' sizes."""

import copy
import gc
import json
import multiprocessing
import os
import random
from collections import Counter

import numpy as np
from mutations import mutate, mutated_bytes
from pycocotools import mask as mask_api

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import ConfigError, DataError

FILES = 10_000 if os.environ.get('MMSAM_FAULTS') == 'full' else 400
"""How many are read; full in make test-faults."""


def make_file(seed, base):
    """The bytes of a mutated file: some changes in values, or in the text itself."""
    rng = random.Random(seed)
    content = copy.deepcopy(rng.choice(base))
    for _ in range(rng.choice([1, 1, 2, 3])):
        try:
            # segmentations are small beside the rest and what is dangerous
            mutate(content, rng, [record.get('segmentation') for record in content['annotations']])
        except (AttributeError, IndexError, KeyError, TypeError):
            break  # nothing to change is left where the first change was
    return mutated_bytes(content, rng)


def outcome(root):
    """What reading the file came to; AssertionError or anything else but a DataError is a bug."""
    try:
        dataset = BoxPromptDataset(
            reader=dict(type='coco', ann_file='ann.json'),
            data_root=str(root),
            pipeline=[dict(type='LoadSAMImage'), dict(type='DecodeObjectMasks')],
            empty_images='keep',
            test_mode=True,
        )
        dataset.full_init()
        number = 0
        for index in range(len(dataset)):
            rles = dataset.get_data_info(index)['rles']
            sample = dataset[index]
            height, width = sample['ori_shape']
            assert sample['img'].shape == (height, width, 3)
            assert sample['gt_masks'].shape == (len(rles), height, width)
            assert sample['boxes'].shape == (len(rles), 4) and np.isfinite(sample['boxes']).all()
            for rle, mask in zip(rles, sample['gt_masks'], strict=True):
                assert set(np.unique(mask)) <= {0, 1} and mask.any()
                assert np.array_equal(mask_api.decode(rle), mask)
                assert mask_api.area(rle) == mask.sum()
            number += len(rles)
    except (DataError, ConfigError) as error:  # the latter where no image is left
        text = str(error)
        assert '\n' not in text and ('ann.json' in text or 'images' in text), text
        return 'DataError'
    return 'masks' if number else 'no masks'


def read_files(root, base, number):
    counts = Counter()
    gc.freeze()  # each data set collects garbage: among all that is imported, that takes 0.1 s
    for seed in range(number):
        (root / 'ann.json').write_bytes(make_file(seed, base))
        (root / 'seed').write_text(str(seed))  # known also when the process dies
        counts[outcome(root)] += 1
    (root / 'counts').write_text(json.dumps(counts))


def test_no_file_gives_wrong_masks_or_another_error(world, capfd):
    base = [world.coco_dict(kind) for kind in ('polygon', 'runs', 'compressed')]
    fork = multiprocessing.get_context('fork')
    reader = fork.Process(target=read_files, args=(world.root, base, FILES))
    reader.start()
    reader.join(timeout=900)
    reader.kill()
    told = capfd.readouterr().err[-2000:]
    assert reader.exitcode == 0, f'seed {(world.root / "seed").read_text()}: {told}'
    counts = json.loads((world.root / 'counts').read_text())
    assert sum(counts.values()) == FILES
    # the mutations are neither all harmless nor all hopeless
    assert min(counts['DataError'], counts['masks']) > 0.05 * FILES, counts


def test_a_seed_is_a_file_that_is_changed(world):
    base = [world.coco_dict()]
    assert make_file(3, base) == make_file(3, base) != json.dumps(base[0]).encode()
