"""A number that tells whether a tensor has changed, computed where the tensor lies."""

import torch
from torch import Tensor

_ODD = (-7046029254386353131, -4658895280553007687)
"""Multipliers modulo 2**64, of splitmix64."""

_UPPER = (1 << 33) - 1
"""The bits of a number shifted right by 31; ``>>`` alone repeats the sign."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_BLOCK = 1 << 22
"""Elements at once, as int64: bounds the memory."""


@torch.no_grad()
def tensor_digest(tensor: Tensor) -> Tensor:
    """Digest of a tensor's bits and their order.

    A change of one element always shows; several changes are lost with a chance of about 2**-64.
    It is no protection against somebody who wants them to be.

    Args:
        tensor: any shape; elements of 1, 2, 4 or 8 bytes.

    Returns:
        () int64 on the tensor's device, not yet waited for.
    """
    bits = tensor.contiguous().flatten().view(_INTEGERS[tensor.element_size()])
    digest = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        place = torch.arange(start, start + len(block), device=tensor.device)
        mixed = place + block  # int64
        # each step is one-to-one, so that one element that differs gives another sum
        for odd in _ODD:
            mixed *= odd
            mixed ^= (mixed >> 31) & _UPPER
        digest += mixed.sum()
    return digest
