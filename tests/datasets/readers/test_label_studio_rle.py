import random

import annotated_scenes as scenes
import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmsam.datasets.readers.label_studio_rle import painted_runs, rle_of_brush


def test_the_scenes_are_encoded_as_label_studio_does():
    """Source: label-studio-converter, tests/test_brush.py @ 176192f, test_rle_encoding."""
    values = [1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 4, 4, 4, 4, 4, 4, 4, 4]
    code = [0, 0, 0, 18, 57, 27, 252, 96, 32, 1, 0, 6, 0, 40, 0, 192, 3, 128, 17, 56, 32]
    assert scenes.brush_code(values) == code


def random_code(values, rng):
    """A code with blocks of any length: runs where values are equal, literals anywhere."""
    lengths = [rng.randrange(1, 17) for _ in range(4)]
    bits = f'{len(values):032b}{7:05b}' + ''.join(f'{length - 1:04b}' for length in lengths)
    position = 0
    while position < len(values):
        which = rng.randrange(4)
        end = min(len(values), position + rng.randrange(1, min(60, 2 ** lengths[which]) + 1))
        block = values[position:end]
        is_run = len(set(block)) == 1 and rng.random() < 0.8
        bits += f'{int(is_run)}{which:02b}{len(block) - 1:0{lengths[which]}b}'
        bits += ''.join(f'{value:08b}' for value in (block[:1] if is_run else block))
        position = end
    bits += '0' * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


@pytest.mark.parametrize('seed', range(20))
def test_codes_of_any_blocks(seed):
    rng = random.Random(seed)
    height, width = rng.randrange(1, 12), rng.randrange(1, 12)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.randrange(4)):
        top, left = rng.randrange(height), rng.randrange(width)
        mask[top : rng.randrange(top, height) + 1, left : rng.randrange(left, width) + 1] = 1
    colours = [[0, rng.randrange(256), 0, 0], [rng.randrange(256), 7, 7, rng.randrange(1, 256)]]
    values = np.array(colours)[mask].ravel().tolist()
    rle = rle_of_brush(random_code(values, rng), (height, width))
    assert rle == mask_api.encode(np.asfortranarray(mask))
    starts, ends = painted_runs(bytes(random_code(values, rng)), height * width)
    flat = np.concatenate([[0], mask.ravel(), [0]])
    changes = np.flatnonzero(np.diff(flat))
    assert starts.tolist() == changes[::2].tolist() and ends.tolist() == changes[1::2].tolist()


def test_only_painted_rows_become_an_array(monkeypatch):
    rows = []
    zeros = np.zeros
    monkeypatch.setattr(np, 'zeros', lambda shape, *args: rows.append(shape) or zeros(shape, *args))
    mask = zeros((300, 2000), np.uint8)
    mask[100:103, 50:60] = 1
    rle = rle_of_brush(scenes.brush(mask), mask.shape)
    assert mask_api.area(rle) == 30
    assert max(np.prod(shape) for shape in rows) <= 3 * 2000 + 1


CODE = scenes.brush(np.eye(4, dtype=np.uint8))


@pytest.mark.parametrize(
    ('code', 'message'),
    [
        (None, 'must be a list of bytes'),
        ('abc', 'must be a list of bytes'),
        (10**30, 'must be a list of bytes'),
        ([10**30], 'must be a list of bytes'),
        ([256], 'must be a list of bytes'),
        ([1.5], 'must be a list of bytes'),
        ([], 'is cut off'),
        ([0, 0], 'is cut off'),
        (CODE[:-2], 'is cut off'),
        ([0, 0, 0, 60, *CODE[4:]], 'is of 60 values, expected 4 for each of 16 pixels'),
        ([*CODE[:4], CODE[4] & 7, *CODE[5:]], 'has values of 1 bits, expected 8'),
        ([255] * 4 + CODE[4:], 'is of 4294967295 values'),
        ([*CODE[:4], CODE[4] | 7, *[255] * 20], 'has more than the 64 values'),
    ],
)
@pytest.mark.bad_input(23, 24, 25, 26)
def test_wrong_codes(code, message):
    with pytest.raises(ValueError, match=message):
        rle_of_brush(code, (4, 4))


def test_damaged_codes_give_masks_of_the_size_or_are_refused():
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        code = list(CODE)
        code[rng.randrange(len(code))] = rng.randrange(256)
        try:
            mask = mask_api.decode(rle_of_brush(code, (4, 4)))
        except ValueError:
            refused += 1
        else:
            assert mask.shape == (4, 4) and mask.max() <= 1
    assert 30 < refused < 290
