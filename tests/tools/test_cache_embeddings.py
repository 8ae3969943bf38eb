"""Embeddings computed ahead by the command line."""

from pathlib import Path

import pytest
import torch
from cached_run import encoded_images, entries
from forked_ranks import train_on_ranks
from tiny_run import refused, run_here, write_config
from tiny_sam import build_segmentor

from tools import cache_embeddings, train

FROZEN = "model.update(frozen=('image_encoder', 'prompt_encoder'))\n"


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'sam.pth'
    torch.manual_seed(5)
    torch.save(build_segmentor(64).state_dict(), path)
    return path


@pytest.fixture
def config(data, tmp_path) -> Path:
    cache = f'embedding_cache = dict(folder={str(tmp_path / "embeddings")!r})'
    return write_config(tmp_path, data, max_iters=2, extra=FROZEN + cache)


def test_a_training_finds_all_that_was_computed_ahead(config, weights, tmp_path):
    with encoded_images() as encoded:
        run_here(cache_embeddings, config, '--load-from', weights, '--work-dir', tmp_path / 'ahead')
    assert len(encoded) == len(entries(tmp_path / 'embeddings')) == 2 * 5 + 3
    assert 'embeddings took 0.0 MB and takes 0.1 MB.' in log_of(tmp_path / 'ahead')
    with encoded_images() as encoded:
        run_here(train, config, '--load-from', weights, '--work-dir', tmp_path / 'run')
    assert encoded == []


def test_phases(config, weights, tmp_path):
    with encoded_images() as encoded:
        run_here(
            cache_embeddings, config, '--load-from', weights, '--work-dir', tmp_path / 'run',
            '--phases', 'test',
        )  # fmt: skip
    assert len(encoded) == 3


def test_two_processes(config, weights, tmp_path):
    train_on_ranks(2, tmp_path / 'run', config, '--load-from', weights, tool=cache_embeddings)
    assert '13 of 13 are computed' in log_of(tmp_path / 'run')
    assert len(entries(tmp_path / 'embeddings')) == 13


def log_of(work_dir: Path) -> str:
    (log,) = work_dir.glob('*/*.log')
    return log.read_text()


@pytest.mark.parametrize(
    ('arguments', 'code', 'words'),
    [
        (['--options', 'embedding_cache=None'], 2, 'has no embedding_cache: expected dict(folder='),
        ([], 2, 'has no load_from: expected the weights of the encoder'),
        (['--load-from', 'no.pth'], 4, 'no.pth'),
    ],
)
def test_what_is_missing(config, tmp_path, capsys, arguments, code, words):
    if '--options' in arguments:  # ``refused`` gives options of its own
        config.write_text(config.read_text() + '\nembedding_cache = None\n')
        arguments = []
    found, line = refused(
        capsys, cache_embeddings, config, '--work-dir', tmp_path / 'run', *arguments
    )
    assert found == code and words in line
    assert not (tmp_path / 'run').exists()
