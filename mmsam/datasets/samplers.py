"""Samplers whose order, and the randomness of their samples, can be continued exactly."""

from collections.abc import Iterator, Sized
from typing import SupportsIndex

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from mmsam.errors import ConfigError
from mmsam.options import check_whole_number
from mmsam.registry import DATA_SAMPLERS


class EpochIndex(int):
    """An index into a data set that carries what the randomness of the sample depends on.

    It is an int to every data set. Subtraction keeps the rest, because ``ConcatDataset`` hands
    ``index - offset`` to its parts.

    Args:
        index: index into the data set, >= 0.
        epoch: how often the data set has been gone through before.
        seed: the sampler's seed.
    """

    epoch: int
    seed: int

    def __new__(cls, index: int, epoch: int, seed: int) -> 'EpochIndex':
        self = super().__new__(cls, index)
        self.epoch = epoch
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:  # type: ignore[override]
        return int(self), self.epoch, self.seed

    def __sub__(self, other: SupportsIndex) -> 'EpochIndex':
        return EpochIndex(int(self) - int(other), self.epoch, self.seed)


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(Sampler):
    """Endless stream of indices, a function of seed, world size and position only.

    The global position p goes to rank ``p % world_size``; it stands for entry ``p % N`` of epoch
    ``p // N``, and each epoch has a permutation of its own. So all ranks together go through the
    data set once an epoch, also where its length is no multiple of the world size, and a resumed
    run starts at its position without going through the ones before.

    Args:
        dataset: the data set of N > 0 samples.
        shuffle: permute the samples of every epoch, else keep their order.
        seed: >= 0, equal on all ranks. mmengine's runner gives its own seed where a config sets
            none here, and None where ranks are seeded differently: then 0.

    Raises:
        ConfigError: the seed is negative, or the data set is empty.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = 0) -> None:
        seed = 0 if seed is None else seed
        check_whole_number('seed of SeededInfiniteSampler', seed, 0)
        self.size = len(dataset)
        if self.size == 0:
            raise ConfigError('SeededInfiniteSampler expected at least one sample, got 0.')
        self.rank, self.world_size = get_dist_info()
        self.shuffle = shuffle
        self.seed = seed
        self._skipped = 0

    def __iter__(self) -> Iterator[EpochIndex]:
        position = self.rank + self._skipped * self.world_size
        order_epoch = -1
        while True:
            epoch, entry = divmod(position, self.size)
            if epoch != order_epoch:
                order, order_epoch = self._order(epoch), epoch
            yield EpochIndex(int(order[entry]), epoch, self.seed)
            position += self.world_size

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.size)
        # RandomState, unlike Generator, never changes its stream between versions of NumPy.
        bits = np.random.MT19937(np.random.SeedSequence([self.seed, epoch]))
        return np.random.RandomState(bits).permutation(self.size)

    def skip(self, num_samples: int) -> None:
        """Lets the next iteration start after this rank's first ``num_samples`` samples.

        Args:
            num_samples: counted from the start of the stream, not from where it is; any number
                costs the same. mmengine calls this when it resumes.
        """
        if num_samples < 0:
            raise ValueError(f'num_samples must be >= 0, got {num_samples}.')
        self._skipped = num_samples

    def __len__(self) -> int:
        """Number of samples in the data set: one epoch of all ranks together."""
        return self.size
