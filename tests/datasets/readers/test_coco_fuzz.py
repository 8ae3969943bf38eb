"""Mutated COCO files: each is refused by a DataError, or gives masks of its images' sizes."""

import copy
import gc
import json
import multiprocessing
import os
import random
import re
from collections import Counter

import numpy as np
from pycocotools import mask as mask_api

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import ConfigError, DataError

FILES = 10_000 if os.environ.get('MMSAM_FAULTS') == 'full' else 400
"""How many are read; full in make test-faults."""

NAN, INF = float('nan'), float('inf')
DEEP = json.loads('[' * 50 + ']' * 50)
VALUES = [
    None, True, False, -1, 0, 1, 2, 7, 2**15, 2**31, 2**32 - 1, 2**63, 2**64, 10**30, -(10**18),
    0.5, -0.0, NAN, INF, -INF, 1e9, -1e9, 1e308, 5e-324, '', 'x', '7', 'NaN', 'a.png', '\0', 'ä',
    '\ud800', '../a.png', [], [[]], [0], ['x'], [None], {}, {'size': []}, DEEP,
]  # fmt: skip


def containers(value, found=None):
    """All dicts and lists that are not empty, the value itself first."""
    found = [] if found is None else found
    if isinstance(value, (dict, list)) and value:
        found.append(value)
        for child in value.values() if isinstance(value, dict) else value:
            containers(child, found)
    return found


def other_value(value, rng):
    """A value of the same kind that is a little or very wrong, or one of any kind."""
    if rng.random() < 0.25:
        return copy.deepcopy(rng.choice(VALUES))
    if isinstance(value, bool) or value is None:
        return rng.choice(VALUES)
    if isinstance(value, int):
        return value + rng.choice([1, -1, 0.5, NAN, value, 1000 * value, -2 * value])
    if isinstance(value, float):
        return value + rng.choice([0.5, -1e3, 1e6, NAN, INF])
    if isinstance(value, str):
        return mutated_text(value, rng)
    return rng.choice([[value], str(value), value[:-1] if isinstance(value, list) else [value]])


def mutated_text(text, rng):
    cut = rng.randrange(len(text) + 1)
    return rng.choice(
        [
            text[:cut],
            text[cut:],
            text * 2,
            text[:cut] + chr(rng.randrange(1, 200)) + text[cut + 1 :],
            ''.join(chr(48 + rng.randrange(64)) for _ in range(rng.randrange(1, 30))),
        ]
    )


def mutate(content, rng):
    """Change one place of a parsed file."""
    places = containers(content)
    # segmentations are small beside the rest and what is dangerous
    if rng.random() < 0.5:
        places = containers([record.get('segmentation') for record in content['annotations']])[1:]
    place = rng.choice(places)
    key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    action = rng.random()
    if action < 0.15:
        del place[key]
    elif action < 0.3 and isinstance(place, list):
        place.insert(key, copy.deepcopy(place[key]))
    elif action < 0.5 and isinstance(place, list) and isinstance(place[key], int):
        # runs keep their sum
        number = rng.choice([1, 2, place[key]])
        place[key] -= number
        place[rng.randrange(len(place))] += number
    else:
        place[key] = other_value(place[key], rng)


def make_file(seed, base):
    """The bytes of a mutated file: some changes in values, or in the text itself."""
    rng = random.Random(seed)
    content = copy.deepcopy(rng.choice(base))
    for _ in range(rng.choice([1, 1, 2, 3])):
        try:
            mutate(content, rng)
        except (AttributeError, IndexError, KeyError, TypeError):
            break  # nothing to change is left where the first change was
    text = json.dumps(content)
    if rng.random() < 0.5:  # JSON's own constants are refused at once
        text = re.sub(r'(?<=[\[ ])NaN', '"nan"', text.replace('Infinity', '1e999'))
    data = text.encode()
    if rng.random() < 0.05:
        cut = rng.randrange(len(data))
        data = data[:cut] + rng.randbytes(rng.randrange(3)) + data[cut + rng.randrange(3) :]
    return data


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
