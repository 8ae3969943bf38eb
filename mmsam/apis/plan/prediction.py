"""What a training step takes: predicted without running it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmsam.engine.optim_wrappers import single_wrappers
from mmsam.models.sam import attention, image_token_functions

from .tracer import Tracer
from .training_step import BatchSize, Training, build_model, build_optimizer, make_batch

MOST_IMAGES = 16
"""Larger batches are not looked for."""


@dataclass(frozen=True)
class StepCost:
    """Of one iteration, an update included.

    Attributes:
        flops: of matrix products, convolutions and attention, forward and backward.
        memory: bytes of all tensors when there are most of them: weights, gradients, optimizer,
            batch, activations and what the computation needs in between.
        small_memory: the most that tensors of at most 32 MiB take together.
    """

    flops: int
    memory: int
    small_memory: int


class TracedTraining:
    """A training whose steps are followed on tensors without memory.

    Attributes:
        parameters, trained_parameters: numbers of weights.
        checkpoint_bytes: weights and optimizer of a checkpoint.
        prompt_chunk: of the model.

    Raises:
        ConfigError: the model cannot be built, or its step cannot be followed.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self._tracer = Tracer()
        with self._tracer.without_memory:
            self.model = build_model(training)
        self._tracer.watch([*self.model.parameters(), *self.model.buffers()])
        with self._tracer:
            self._optim_wrapper = build_optimizer(training, self.model)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.trained_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.checkpoint_bytes = _checkpoint_bytes(self.model, self._optim_wrapper)
        self.prompt_chunk: int = self.model.prompt_chunk
        self._on_gpu: dict[BatchSize, int] = {}

    def step(self, size: BatchSize) -> StepCost:
        """The cost of a step on a batch, on a CPU."""
        with self._tracer as tracer:
            batch = make_batch(self._training, self.model, size)
            tracer.reset()
            self.model.train_step(batch, self._optim_wrapper)
        return StepCost(tracer.flops, tracer.peak, tracer.small_peak)

    def memory_on_gpu(self, size: BatchSize) -> int:
        """``StepCost.memory`` with the attention and the decoder's blocks of a GPU."""
        if size not in self._on_gpu:
            with _ways_of_gpu():
                self._on_gpu[size] = self.step(size).memory
        return self._on_gpu[size]

    def most_images(self, objects: int, limit: float) -> int:
        """The largest batch whose step fits, up to ``MOST_IMAGES``; see ``largest_batch``.

        Args:
            objects: of each image.
            limit: of ``memory_on_gpu``, in bytes.
        """
        return largest_batch(
            lambda images: self.memory_on_gpu(BatchSize(images, objects)),
            limit,
            chunked_from=self.prompt_chunk // objects + 1,
        )


@contextmanager
def _ways_of_gpu() -> Iterator[None]:
    """Let the model compute on tensors of a CPU as it does on those of a GPU."""
    block, by_chunks = image_token_functions.CPU_BLOCK, attention.attends_by_chunks
    image_token_functions.CPU_BLOCK = image_token_functions.GPU_BLOCK
    attention.attends_by_chunks = lambda qkv: False
    try:
        yield
    finally:
        image_token_functions.CPU_BLOCK, attention.attends_by_chunks = block, by_chunks


def largest_batch(memory: Callable[[int], float], limit: float, *, chunked_from: int) -> int:
    """The most images, up to ``MOST_IMAGES``, whose step fits; 0 if not even one does.

    Asks for the memory of four batches at most, and takes it to be linear in between.

    Args:
        memory: of a step on so many images, in bytes.
        limit: in bytes.
        chunked_from: the number of images from which on their prompts are trained in chunks, whose
            activations are computed again: there memory falls once.
    """

    def between(fits: int, does_not: int) -> int:
        slope = (memory(does_not) - memory(fits)) / (does_not - fits)
        return int(fits + (limit - memory(fits)) / slope)

    if memory(MOST_IMAGES) <= limit:
        return MOST_IMAGES
    if chunked_from < MOST_IMAGES and memory(chunked_from) <= limit:
        return between(chunked_from, MOST_IMAGES)
    if chunked_from == 1 or memory(1) > limit:
        return 0
    last = min(chunked_from - 1, MOST_IMAGES)
    return last if memory(last) <= limit else between(1, last)


def _checkpoint_bytes(model: nn.Module, optim_wrapper: OptimWrapper) -> int:
    states = [
        value
        for wrapper in single_wrappers(optim_wrapper)
        for state in wrapper.optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    tensors: list[Tensor] = [*model.state_dict().values(), *states]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
