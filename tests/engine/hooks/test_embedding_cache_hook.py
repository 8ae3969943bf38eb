"""Whole runs with an embedding cache, beside the same ones without."""

import json
from pathlib import Path

import pytest
import torch
from cached_run import encoded_images, entries
from forked_ranks import train_on_ranks
from tiny_run import equal, refused, run_here, train_records, weights_of, write_config

from mmsam.apis import load_run_config
from mmsam.datasets.transforms import loading
from mmsam.engine import SAMRunner
from tools import test, train

LINES = """
model.update(frozen=('image_encoder', 'prompt_encoder'))
model.update(correction=dict(num_clicks=1, num_repeats=1))
train_cfg.update(val_interval=2)
default_hooks.update(checkpoint=dict(interval=2))
train_pipeline[-1:] = [dict(type='RandomPrompts', box=1, point=1, mask=1), train_pipeline[-1]]
"""
TRAINED, VALIDATED = 2 * 5, 3
"""Embeddings: images with an object in two orientations, and those of the validation."""


@pytest.fixture(scope='module')
def config(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('config')
    cache = f'embedding_cache = dict(folder={str(folder / "embeddings")!r})'
    return write_config(folder, data, max_iters=2, extra=LINES + cache)


@pytest.fixture(scope='module')
def cached(config) -> Path:
    """The work dir of a run that computes the embeddings first."""
    work_dir = config.parent / 'cached'
    with encoded_images() as encoded:
        run_here(train, config, '--work-dir', work_dir)
    assert len(encoded) == TRAINED + VALIDATED
    assert len(entries(config.parent / 'embeddings')) == TRAINED + VALIDATED
    return work_dir


@pytest.fixture(scope='module')
def plain(config) -> Path:
    """The work dir of the same run without a cache."""
    work_dir = config.parent / 'plain'
    with encoded_images() as encoded:
        run_here(train, config, '--work-dir', work_dir, '--options', 'embedding_cache=None')
    assert len(encoded) == 2 * 2 + 2 * 3  # iterations of two images, validations of three
    return work_dir


def test_losses_and_scores_are_nearly_those_without(cached, plain):
    """Embeddings are rounded to float16; all that is drawn at random is the same."""
    ours, theirs = train_records(cached), train_records(plain)
    assert ours.keys() == theirs.keys() == {1, 2}
    for iteration, record in ours.items():
        for name in [name for name in record if name.startswith('loss')]:
            assert record[name] == pytest.approx(theirs[iteration][name], rel=1e-2), name
    assert ours[1]['loss'] != theirs[1]['loss']
    scores = [json.loads((folder / 'results.json').read_text()) for folder in (cached, plain)]
    for stage in ('before', 'after'):
        assert scores[0][stage]['mIoU'] == pytest.approx(scores[1][stage]['mIoU'], abs=0.01)


def test_the_next_run_reads_no_image_and_is_the_same_bit_by_bit(
    cached, config, tmp_path, monkeypatch
):
    """With workers, while the first run had none."""
    monkeypatch.setattr(loading, 'read_rgb', None)  # in workers, too, which are forked
    with encoded_images() as encoded:
        run_here(
            train, config, '--work-dir', tmp_path, '--options',
            *(f'{name}_dataloader.num_workers=1' for name in ('train', 'val')),
            *(f'{name}_dataloader.persistent_workers=True' for name in ('train', 'val')),
        )  # fmt: skip
    assert encoded == []
    assert equal(weights_of(tmp_path / 'iter_2.pth'), weights_of(cached / 'iter_2.pth'))
    results = [json.loads((folder / 'results.json').read_text()) for folder in (tmp_path, cached)]
    assert results[0] == results[1]


def test_two_ranks_compute_it_together(config, tmp_path):
    train_on_ranks(
        2, tmp_path / 'run', config, '--no-validate', '--options', 'train_cfg.max_iters=1',
        'train_dataloader.batch_size=1', f'embedding_cache.folder={tmp_path / "shared"}',
    )  # fmt: skip
    assert len(entries(tmp_path / 'shared')) == TRAINED
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert f'{TRAINED} of {TRAINED} are computed' in log.read_text()


def test_a_comparison_reads_the_embeddings_of_each_of_its_weights(cached, config, tmp_path):
    """Of one runner, whose persistent workers began with the first."""
    stock = cached / 'sam_tuned.pth'
    content = torch.load(stock)
    content['image_encoder.neck.3.weight'] *= 1.5
    torch.save(content, tmp_path / 'other.pth')
    folder = tmp_path / 'embeddings'
    for name, cache in (('cached', f'embedding_cache.folder={folder}'),
                        ('plain', 'embedding_cache=None')):  # fmt: skip
        run_here(
            test, config, stock, '--zero-shot', tmp_path / 'other.pth',
            '--work-dir', tmp_path / name, '--options', cache,
            'test_dataloader.num_workers=1', 'test_dataloader.persistent_workers=True',
        )  # fmt: skip
    ours, theirs = (
        json.loads((tmp_path / name / 'comparison.json').read_text())
        for name in ('cached', 'plain')
    )
    for stage in ('before', 'after'):
        for score in ('IoU_bias', 'mIoU'):
            assert ours[stage][score] == pytest.approx(theirs[stage][score], abs=5e-3), score
    assert abs(theirs['before']['IoU_bias'] - theirs['after']['IoU_bias']) > 0.02
    assert len(list(folder.iterdir())) == 2 and len(entries(folder)) == 2 * VALIDATED


def test_a_validation_alone(cached, config, tmp_path):
    run_config = load_run_config(
        str(config), {'embedding_cache.folder': str(tmp_path / 'embeddings')}, str(tmp_path)
    )
    run_config.load_from = str(cached / 'sam_tuned.pth')
    del run_config.default_hooks.checkpoint.save_best  # which mmengine needs a training for
    run_config.experiment_name = 'validation_alone'
    runner = SAMRunner.from_cfg(run_config)
    with encoded_images() as encoded:
        runner.val()
        runner.val()
    assert len(encoded) == len(entries(tmp_path / 'embeddings')) == VALIDATED


def test_an_encoder_that_trains_is_refused_before_anything_is_built(config, tmp_path, capsys):
    code, line = refused(
        capsys, train, config, '--work-dir', tmp_path, '--options', 'model.frozen=[]'
    )
    assert code == 2 and 'embedding_cache: expected image_encoder in model.frozen' in line
    assert list(tmp_path.iterdir()) == []
