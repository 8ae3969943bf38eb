"""What a process takes beside the tensors of its training: measured, and no property of a config.

``benchmarks/plan_accuracy.py`` measures what is said of the CPU: x86-64, glibc 2.36, torch 2.13.
"""

from .prediction import StepCost

PROCESS_BYTES = 480e6
"""Python, torch, mmengine, OpenCV and so on, and the kernels that a step loads."""

_KEPT_BY_GLIBC = 0.22
"""Freed memory that glibc keeps, as a share of the most that blocks up to 32 MiB had in use."""

_CUDA_CONTEXT = 0.6 * 2**30
"""Assumed: what CUDA takes on a card before the first tensor, 0.3 to 0.6 GiB."""

_KEPT_BY_CUDA_ALLOCATOR = 0.1
"""Assumed: blocks that torch holds on a card and cannot use, as a share of what is in use."""


def memory_of_process(step: StepCost) -> float:
    """Peak resident memory of a process that trains on a CPU, in bytes."""
    return PROCESS_BYTES + step.memory + _KEPT_BY_GLIBC * step.small_memory


def memory_on_card(gibibytes: float) -> float:
    """What a card of so many GiB has for tensors, in bytes."""
    return (gibibytes * 2**30 - _CUDA_CONTEXT) / (1 + _KEPT_BY_CUDA_ALLOCATOR)
