import random

import annotated_scenes as scenes
import pytest

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.splits import Split, build_split
from mmsam.errors import ConfigError

pytestmark = pytest.mark.usefixtures('quick_data_sets')

RATIOS = dict(train=0.7, val=0.2, test=0.1)


def parts_of(paths, **options):
    return {path: Split('train', **{'ratios': RATIOS, **options}).of_image(path) for path in paths}


def names(number, seed=0):
    rng = random.Random(seed)
    return [f'{rng.randrange(50)}/{rng.randrange(10**9)}.jpg' for _ in range(number)]


@pytest.mark.parametrize('seed', range(3))
def test_images_that_are_added_move_no_other(seed):
    paths = names(400, seed)
    some, all_of_them = parts_of(paths[:200], seed=seed), parts_of(paths, seed=seed)
    assert some.items() <= all_of_them.items()
    assert set(all_of_them.values()) == set(RATIOS)


def test_sizes_are_near_the_ratios():
    parts = list(parts_of(names(10_000)).values())
    for part, ratio in RATIOS.items():  # 5 standard deviations of a binomial distribution
        assert abs(parts.count(part) - 10_000 * ratio) < 5 * (10_000 * ratio * (1 - ratio)) ** 0.5


def test_parts_are_disjoint_and_complete():
    paths = names(300)
    chosen = [Split(part, RATIOS).chosen([f'x/{path}' for path in paths], 'x') for part in RATIOS]
    assert sorted(sum(chosen, [])) == list(range(300))
    assert all(one == sorted(one) for one in chosen)  # the order stays


def test_the_order_of_the_ratios_does_not_matter():
    paths = names(200)
    assert parts_of(paths) == parts_of(paths, ratios=dict(reversed(RATIOS.items())))


def test_the_seed_does():
    paths = names(200)
    same = sum(
        a == b
        for a, b in zip(parts_of(paths).values(), parts_of(paths, seed=1).values(), strict=True)
    )
    assert 60 < same < 150  # by chance 0.7² + 0.2² + 0.1² = 54 %


@pytest.mark.parametrize('group', ['folder', r'^(\d+)/'])
def test_groups_stay_together(group):
    parts = parts_of(names(1000), group=group)
    groups = {}
    for path, part in parts.items():
        groups.setdefault(path.split('/')[0], set()).add(part)
    assert all(len(found) == 1 for found in groups.values())
    assert {part for found in groups.values() for part in found} == set(RATIOS)


def test_group_by_expression_and_by_folder_are_the_same_names():
    assert Split('train', RATIOS, r'patient_(\d+)').group_of('x/patient_07_left.png') == '07'
    assert Split('train', RATIOS, 'folder').group_of('x/y/a.png') == 'x/y'
    assert Split('train', RATIOS, 'folder').group_of('a.png') == ''
    assert Split('train', RATIOS).group_of('x/a.png') == 'x/a.png'


def test_the_division_is_the_same_everywhere():
    split = Split('a', dict(a=0.5, b=0.5))
    # printf 0/0 | sha256sum, 0/1, ... begin with these bytes: below 0x80 is the first half
    digests = [0x55, 0xA9, 0x9D, 0xEC, 0x34, 0xC2, 0x67, 0x8C]
    expected = ['a' if digest < 0x80 else 'b' for digest in digests]
    assert [split.of_image(str(number)) for number in range(8)] == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('val', 'must be a dict'),
        (dict(part='val'), "needs the key 'ratios'"),
        (dict(ratios=RATIOS), "needs the key 'part'"),
        (dict(part='val', ratios=RATIOS, sed=1), "key of split .*did you mean 'seed'"),
        (dict(part='vla', ratios=RATIOS), "part of split .*did you mean 'val'"),
        (dict(part='val', ratios=0.8), 'must be a dict of part and share'),
        (dict(part='val', ratios=dict(train=0.8, val=0.3)), 'add up to 1, got 1.1'),
        (
            dict(part='val', ratios=dict(train=80, val=20)),
            'train must be above 0, at most 1, got 80',
        ),
        (dict(part='val', ratios=dict(train=1, val=0)), 'val must be above 0'),
        (dict(part='val', ratios=dict(train='0.8', val=0.2)), "got '0.8'"),
        (dict(part='val', ratios=RATIOS, seed='1'), "seed of split .*'1'"),
        (dict(part='val', ratios=RATIOS, group='('), 'no regular expression'),
        (dict(part='val', ratios=RATIOS, group=3), 'no regular expression'),
        (dict(part='val', ratios=RATIOS, group='patient'), 'group in brackets'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        build_split(options)


def test_an_image_without_a_group_is_named():
    with pytest.raises(ConfigError, match=r"'case_\(.*not found in the image x/patient_1.png"):
        Split('val', RATIOS, r'case_(\d+)').of_image('x/patient_1.png')


@pytest.mark.parametrize('form', ['coco', 'labelme', 'davis'])
def test_data_sets_are_divided(tmp_path, form):
    options = scenes.options(tmp_path, form) | dict(empty_images='keep')
    ratios = dict(one=0.5, two=0.5)
    keys = [f'{name}/00000.jpg' if form == 'davis' else f'{name}.jpg' for name in scenes.SIZES]
    heights = {}
    for part in ratios:
        dataset = BoxPromptDataset(**options, split=dict(part=part, ratios=ratios, seed=1))
        heights[part] = [dataset[index]['height'] for index in range(len(dataset))]
    expected = dict(one=[], two=[])
    for key, (height, _) in zip(keys, scenes.SIZES.values(), strict=True):
        expected[Split('one', ratios, seed=1).of_image(key)].append(height)
    assert heights == expected and all(heights.values())
    classes = ('object',) if form == 'davis' else scenes.CLASSES  # of all images, not of a part
    assert dataset.metainfo['classes'] == classes


@pytest.mark.bad_input(49)
def test_an_empty_part_is_an_error(tmp_path):
    options = scenes.options(tmp_path, 'davis')
    split = dict(part='val', ratios=dict(train=0.999, val=0.001), group='folder')
    message = "3 images in .*480p in the part 'val', got train 3, val 0, from 3 groups"
    with pytest.raises(ConfigError, match=message):
        BoxPromptDataset(**options, split=split)
