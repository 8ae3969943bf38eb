import copy
import itertools
import pickle
import time

import pytest
from torch.utils.data import DataLoader

import mmsam.datasets.samplers as samplers
from mmsam.datasets import EpochIndex, SeededInfiniteSampler
from mmsam.errors import ConfigError
from mmsam.registry import DATA_SAMPLERS


def take(sampler, count):
    return list(itertools.islice(iter(sampler), count))


def of_rank(monkeypatch, rank, world_size, **options):
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, world_size))
    return SeededInfiniteSampler(range(7), **options)


def test_epoch_index_is_an_int_that_travels():
    index = EpochIndex(5, epoch=2, seed=11)
    for other in (index, pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        assert other == 5 and 'abcdef'[other] == 'f'
        assert (other.epoch, other.seed) == (2, 11)
    assert (index - 3, (index - 3).epoch, (index - 3).seed) == (2, 2, 11)


def test_every_epoch_is_a_permutation_of_its_own():
    indices = take(SeededInfiniteSampler(range(50), seed=1), 150)
    epochs = [indices[i : i + 50] for i in (0, 50, 100)]
    for number, epoch in enumerate(epochs):
        assert sorted(epoch) == list(range(50))
        assert {index.epoch for index in epoch} == {number}
        assert {index.seed for index in epoch} == {1}
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] != list(range(50))
    assert take(SeededInfiniteSampler(range(50), seed=1), 150) == indices
    assert take(SeededInfiniteSampler(range(50), seed=2), 150) != indices


def test_order_does_not_change_with_versions():
    # the stream of NumPy's MT19937 seeded by SeedSequence([0, 0]); resumed runs rely on it
    assert take(SeededInfiniteSampler(range(8)), 8) == [6, 3, 5, 0, 7, 2, 1, 4]


def test_without_shuffle_in_order():
    assert take(SeededInfiniteSampler(range(3), shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_ranks_share_one_stream(monkeypatch):
    alone = take(of_rank(monkeypatch, 0, 1), 42)
    ranks = [take(of_rank(monkeypatch, rank, 2), 21) for rank in range(2)]
    merged = [index for pair in zip(*ranks, strict=True) for index in pair]
    assert merged == alone
    assert [index.epoch for index in merged] == [index.epoch for index in alone]


@pytest.mark.parametrize('rank', [0, 1])
@pytest.mark.trap(18)
def test_skip_is_absolute_and_per_rank(monkeypatch, rank):
    sampler = of_rank(monkeypatch, rank, 2)
    stream = take(sampler, 40)
    sampler.skip(25)
    sampler.skip(9)
    assert take(sampler, 31) == stream[9:]
    assert [i.epoch for i in take(sampler, 31)] == [i.epoch for i in stream[9:]]


@pytest.mark.trap(18)
def test_a_long_skip_is_cheap():
    sampler = SeededInfiniteSampler(range(1000))
    start = time.perf_counter()
    sampler.skip(10**9 + 1)
    first = take(sampler, 1)[0]
    assert time.perf_counter() - start < 1
    assert first.epoch == 10**6


def test_built_as_the_runner_builds_it():
    config = {'type': 'SeededInfiniteSampler'}
    for seed, expected in ((5, 5), (None, 0)):
        sampler = DATA_SAMPLERS.build(config, default_args={'dataset': range(4), 'seed': seed})
        assert sampler.seed == expected and len(sampler) == 4


def test_fewer_samples_than_a_batch_fill_it():
    """Also with drop_last, which a sampler without an end never comes to."""
    sampler = SeededInfiniteSampler(range(3), shuffle=False)
    loader = DataLoader(range(3), batch_size=7, sampler=sampler, drop_last=True)
    batches = [batch.tolist() for batch in itertools.islice(loader, 2)]
    assert batches == [[0, 1, 2, 0, 1, 2, 0], [1, 2, 0, 1, 2, 0, 1]]


@pytest.mark.bad_input(49)
def test_wrong_arguments():
    with pytest.raises(ConfigError, match='-1'):
        SeededInfiniteSampler(range(3), seed=-1)
    with pytest.raises(ConfigError, match='at least one sample, got 0'):
        SeededInfiniteSampler([])
    with pytest.raises(ValueError, match='-1'):
        SeededInfiniteSampler(range(3)).skip(-1)
