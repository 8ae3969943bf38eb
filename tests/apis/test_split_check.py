import json
import shutil
from types import SimpleNamespace

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, RepeatDataset
from tiny_run import refused, write_config
from torch.utils.data import DataLoader

from mmsam.apis import check_splits
from mmsam.datasets import BoxPromptDataset, SeededInfiniteSampler
from mmsam.errors import ConfigError
from tools import train


def make_runner(train_loader, val_loader=None, world_size=1):
    val_loop = None if val_loader is None else SimpleNamespace(dataloader=val_loader)
    lines = []
    return SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=train_loader),
        val_loop=val_loop,
        world_size=world_size,
        logger=SimpleNamespace(warning=lines.append, lines=lines),
    )


class Paths(BaseDataset):
    """A data set as mmseg's, of images that need not exist."""

    def __init__(self, *paths):
        self.paths = paths
        super().__init__()

    def load_data_list(self):
        return [{'img_path': path} for path in self.paths]


def endless(dataset, batch_size, **options):
    sampler = SeededInfiniteSampler(dataset)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **options)


def ending(dataset, batch_size, **options):
    sampler = DefaultSampler(dataset, seed=0)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **options)


@pytest.mark.bad_input(49)
def test_empty_splits():
    some, none = ending(range(5), 2), ending([], 2)
    for runner, name in (
        (make_runner(none, some), 'train_dataloader'),
        (make_runner(some, none), 'val_dataloader'),
    ):
        with pytest.raises(ConfigError, match=f'{name}: expected at least one image, got 0'):
            check_splits(runner)


@pytest.mark.bad_input(49)
def test_less_than_a_batch():
    check_splits(make_runner(ending(range(5), 8)))  # one batch of five
    check_splits(make_runner(ending(range(8), 8, drop_last=True)))
    with pytest.raises(ConfigError, match=r'5 images are less than a batch of 1 x 8 .*drop_last'):
        check_splits(make_runner(ending(range(5), 8, drop_last=True)))


@pytest.mark.parametrize(('images', 'warned'), [(15, True), (16, False)])
@pytest.mark.bad_input(49)
def test_less_than_an_iteration_of_a_sampler_without_an_end(images, warned):
    """It goes round: no batch is lost, so that this only is said."""
    runner = make_runner(endless(range(images), 8, drop_last=True), world_size=2)
    check_splits(runner)
    assert len(runner.logger.lines) == warned
    if warned:
        assert '15 images are less than an iteration takes, 2 x 8' in runner.logger.lines[0]


@pytest.mark.bad_input(49)
def test_images_in_both_splits(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'images')
    trained = ConcatDataset(
        [
            Paths(f'{tmp_path}/link/b.png', f'{tmp_path}/link/a.png'),
            Paths(f'{tmp_path}/link/c.png'),
        ]
    )
    validated = RepeatDataset(Paths(*(f'{tmp_path}/images/{name}.png' for name in 'abcd')), 2)
    runner = make_runner(ending(trained, 1), ending(validated, 1))
    check_splits(runner)
    assert runner.logger.lines == [
        f'3 of 4 images of the validation are trained on, such as {tmp_path}/images/a.png: its '
        'scores are too good.'
    ]
    others = Paths(f'{tmp_path}/others/a.png', f'{tmp_path}/images/e.png')
    runner = make_runner(ending(trained, 1), ending(others, 1))
    check_splits(runner)
    assert runner.logger.lines == []


@pytest.mark.bad_input(49)
def test_images_in_both_splits_of_box_prompts(data):
    train_set, val_set = (
        BoxPromptDataset(
            dict(type='coco', ann_file=f'annotations_{split}.json'), str(data), test_mode=True
        )
        for split in ('train', 'val')
    )
    runner = make_runner(endless(train_set, 1), ending(train_set, 1))
    check_splits(runner)
    (line,) = runner.logger.lines  # one of its six images has no object, and is skipped
    assert line.startswith('5 of 5 images') and f'{data}/images/train_1.png' in line
    runner = make_runner(endless(train_set, 1), ending(val_set, 1))
    check_splits(runner)
    assert runner.logger.lines == []


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.bad_input(49)
def test_a_run_with_an_empty_split_does_not_begin(data, tmp_path, capsys, split):
    root = tmp_path / 'data'
    shutil.copytree(data, root)
    path = root / f'annotations_{split}.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'annotations': []}))
    code, line = refused(capsys, train, write_config(tmp_path, root), '--work-dir', tmp_path / 'a')
    assert code == 2 and f"ann_file='annotations_{split}.json', got 0: none of the" in line
    assert not list((tmp_path / 'a').glob('*.pth'))


@pytest.mark.bad_input(49)
def test_a_run_without_a_batch_does_not_begin(data, tmp_path, capsys):
    config = write_config(
        tmp_path, data,
        extra="train_dataloader.update(batch_size=6, drop_last=True)\n"
        "train_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=True)",
    )  # fmt: skip
    code, line = refused(capsys, train, config, '--work-dir', tmp_path / 'a')
    # one of the six images has no object, and is skipped
    assert code == 2 and 'train_dataloader: 5 images are less than a batch of 1 x 6 ' in line
