"""What finding its place in the data costs a resumed run: seconds, and samples read, to go on.

    python benchmarks/resume_position.py [--images 100000] [--batch-size 8]

The loop of mmengine skips to the iteration and takes the next batch, with mmsam's sampler and with
mmengine's own.
"""

import argparse
import time

from mmengine.dataset import InfiniteSampler
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader, Dataset

from mmsam.datasets import SeededInfiniteSampler


class CountedSamples(Dataset):
    """Of no cost, so that only the sampler's shows."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.reads = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.reads += 1
        return int(index)


def measure(sampler_type: type, images: int, batch_size: int, iteration: int) -> tuple[float, int]:
    """Seconds until the batch of ``iteration`` is there, and samples read for it."""
    samples = CountedSamples(images)
    loader = DataLoader(samples, batch_size, sampler=sampler_type(samples, seed=0))
    start = time.perf_counter()
    batches = _InfiniteDataloaderIterator(loader)
    batches.skip_iter(iteration)
    next(batches)
    return time.perf_counter() - start, samples.reads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=100_000)
    parser.add_argument('--batch-size', type=int, default=8)
    args = parser.parse_args()
    for sampler_type in (SeededInfiniteSampler, InfiniteSampler):
        for iteration in (1, 1_000, 100_000):
            seconds, reads = measure(sampler_type, args.images, args.batch_size, iteration)
            print(f'{sampler_type.__name__}, iteration {iteration}: {seconds:.3f} s, {reads} read')


if __name__ == '__main__':
    main()
