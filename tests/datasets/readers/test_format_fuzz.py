"""Mutated files of the other formats: each is refused by a sentence, or gives masks."""

import copy
import json
import multiprocessing
import os
import random
from collections import Counter

import annotated_scenes as scenes
import numpy as np
import pytest
from mutations import mutate, mutated_bytes, mutated_text
from pycocotools import mask as mask_api

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import ConfigError, DataError

FILES = 2_000 if os.environ.get('MMSAM_FAULTS') == 'full' else 60
"""How many of each format are read; full in make test-faults."""

FILE = dict(
    sa1b='images/a.json', labelme='json/a.json', labelme_masks='json/a.json',
    label_studio='export.json', label_studio_polygons='export.json', yolo_seg='labels/train/a.txt',
)  # fmt: skip


def make_file(text, seed):
    rng = random.Random(seed)
    if not text.startswith(('{', '[')):
        return mutated_text(text, rng).encode('utf-8', 'surrogatepass')
    content = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 3])):
        try:
            mutate(content, rng)
        except (AttributeError, IndexError, KeyError, TypeError):
            break  # nothing to change is left where the first change was
    return mutated_bytes(content, rng)


def outcome(options):
    try:
        dataset = BoxPromptDataset(**copy.deepcopy(options))
        samples = [dataset[index] for index in range(len(dataset))]
    except (DataError, ConfigError) as error:
        text = str(error)
        assert '\n' not in text and options['data_root'] in text, text
        return 'refused'
    for sample in samples:
        assert np.isfinite(sample['boxes']).all() and len(sample['boxes']) == len(sample['rles'])
        for rle in sample['rles']:
            mask = mask_api.decode(rle)
            assert mask.shape == (sample['height'], sample['width']) and mask.any()
            assert mask.max() == 1 and mask_api.area(rle) == mask.sum()
    return 'masks'


def read_files(root, options, path):
    text = path.read_text()
    counts = Counter()
    for seed in range(FILES):
        path.write_bytes(make_file(text, seed))
        (root / 'seed').write_text(str(seed))  # known also when the process dies
        counts[outcome(options)] += 1
    (root / 'counts').write_text(json.dumps(counts))


@pytest.mark.parametrize('form', FILE)
@pytest.mark.usefixtures('quick_data_sets')
def test_no_file_gives_wrong_masks_or_another_error(tmp_path, form, capfd):
    options = scenes.options(tmp_path, form)
    fork = multiprocessing.get_context('fork')
    reader = fork.Process(target=read_files, args=(tmp_path, options, tmp_path / FILE[form]))
    reader.start()
    reader.join(timeout=900)
    reader.kill()
    told = capfd.readouterr().err[-2000:]
    assert reader.exitcode == 0, f'seed {(tmp_path / "seed").read_text()}: {told}'
    counts = json.loads((tmp_path / 'counts').read_text())
    assert counts['refused'] >= 3 and counts['masks'] >= 3, counts  # neither hopeless nor harmless
