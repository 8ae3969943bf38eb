"""Three small images whose objects are known rectangles, written in any annotation format."""

import gc
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

# name: (height, width, boxes xyxy with exclusive far edges)
SCENES = {
    'a': (60, 80, [(10, 5, 20, 25), (30, 40, 70, 60)]),
    'b': (40, 40, []),
    'c': (50, 30, [(0, 0, 7, 9)]),
}


def rectangle(height, width, box):
    mask = np.zeros((height, width), np.uint8)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = 1
    return mask


def runs(mask):
    """Uncompressed RLE counts, one pixel after the other."""
    counts = [] if mask[0, 0] == 0 else [0]
    return counts + [len(list(group)) for _, group in itertools.groupby(mask.T.ravel().tolist())]


def segmentation(kind, height, width, box):
    x1, y1, x2, y2 = box
    if kind == 'polygon':
        return [[x1, y1, x2, y1, x2, y2, x1, y2]]
    mask = rectangle(height, width, box)
    if kind == 'runs':
        return {'size': [height, width], 'counts': runs(mask)}
    rle = mask_api.encode(np.asfortranarray(mask))
    return {'size': [height, width], 'counts': rle['counts'].decode()}


class World:
    """A data root with images, and whatever annotations a test writes."""

    def __init__(self, root: Path):
        self.root = root
        (root / 'images').mkdir()
        rng = np.random.default_rng(0)
        for name, (height, width, _) in SCENES.items():
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / 'images' / f'{name}.png')

    def coco_dict(self, kind='polygon'):
        images, annotations = [], []
        for image_id, (name, (height, width, boxes)) in enumerate(SCENES.items(), 1):
            images.append(
                {'id': image_id, 'file_name': f'{name}.png', 'height': height, 'width': width}
            )
            for box in boxes:
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': image_id,
                        'category_id': 7,
                        'iscrowd': 0,
                        'bbox': [x1, y1, x2 - x1, y2 - y1],
                        'segmentation': segmentation(kind, height, width, box),
                    }
                )
        categories = [{'id': 7, 'name': 'thing'}]
        return {'images': images, 'annotations': annotations, 'categories': categories}

    def write_json(self, content):
        (self.root / 'ann.json').write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
        return {'type': 'coco', 'ann_file': 'ann.json'}

    def write_masks(self, kind):
        (self.root / 'masks').mkdir(exist_ok=True)
        for name, (height, width, boxes) in SCENES.items():
            mask = np.zeros((height, width), np.uint8)
            for number, box in enumerate(boxes, 1):
                value = number if kind == 'instance' else 255
                mask[rectangle(height, width, box) == 1] = value
            Image.fromarray(mask).save(self.root / 'masks' / f'{name}.png')
        return {'type': 'mask_folder', 'mask_dir': 'masks', 'kind': kind}

    def reader(self, form):
        if form in ('instance', 'components'):
            return self.write_masks(form)
        return self.write_json(self.coco_dict(form))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def train_pipeline():
    return [
        {'type': 'LoadSAMImage'},
        {'type': 'RandomObjects', 'max_objects': 1},
        {'type': 'ResizeLongestSide', 'image_size': 64},
        {'type': 'DecodeObjectMasks'},
        {'type': 'RandomPromptedFlip'},
        {'type': 'JitterBoxes'},
        {'type': 'PackSAMInputs'},
    ]


@pytest.fixture
def quick_data_sets():
    """Each data set collects garbage, which takes 0.1 s among all that is imported."""
    gc.freeze()
    yield
    gc.unfreeze()
