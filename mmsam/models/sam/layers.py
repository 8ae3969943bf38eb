"""Small layers that SAM's image encoder, prompt encoder and mask decoder share."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W) maps.

    Source: segment_anything/modeling/common.py @ 6fdee8f.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return self.normalize_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def normalize_last(self, x: Tensor) -> Tensor:
        """The same for channels-last maps (..., C)."""
        return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class MLPBlock(BaseModule):
    """Two linear layers with an activation between, (..., dim) to (..., dim).

    Source: segment_anything/modeling/common.py @ 6fdee8f.
    """

    def __init__(self, dim: int, hidden_dim: int, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.act(self.lin1(x)))


class MLP(BaseModule):
    """Linear layers with ReLU between, none after the last: (..., in) to (..., out).

    Source: segment_anything/modeling/mask_decoder.py @ 6fdee8f.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims, dims[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)
