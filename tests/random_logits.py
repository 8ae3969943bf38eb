"""Random mask logits and true masks."""

import torch
from torch import Tensor


def random_logits(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits about 3 from 0, and targets of 0 and 1, both float32 of this shape."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    return logits, (torch.rand(shape, generator=generator) > 0.6).float()
