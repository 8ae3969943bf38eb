import pytest
import torch
from torch import nn

from mmsam.models.sam.layers import MLP, LayerNorm2d, MLPBlock


def test_layer_norm_2d_by_hand():
    norm = LayerNorm2d(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([10.0, 20.0]))
    x = torch.tensor([[[[1.0, 8.0]], [[5.0, 2.0]]]])  # channels (1, 5) and (8, 2): -1/+1, +1/-1
    assert norm(x)[0, :, 0].tolist() == [[8.0, 12.0], [23.0, 17.0]]


def test_layer_norm_2d_adds_eps_to_the_variance():
    x = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)  # variance 1
    torch.testing.assert_close(
        LayerNorm2d(2, eps=3.0)(x).flatten(), torch.tensor([0.5, -0.5]), rtol=0, atol=1e-6
    )


def test_layer_norm_2d_channels_last_is_the_same():
    norm = LayerNorm2d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(
        norm.normalize_last(x.permute(0, 2, 3, 1)), norm(x).permute(0, 2, 3, 1)
    )


def test_mlp_has_relu_between_but_not_after():
    mlp = MLP(input_dim=1, hidden_dim=1, output_dim=1, num_layers=2)
    with torch.no_grad():
        for layer, weight in zip(mlp.layers, (1.0, -2.0), strict=True):
            layer.weight.fill_(weight)
            layer.bias.zero_()
    assert mlp(torch.tensor([[3.0], [-3.0]])).tolist() == [[-6.0], [0.0]]


@pytest.mark.parametrize('num_layers', [1, 3])
def test_mlp_widths(num_layers):
    widths = [(layer.in_features, layer.out_features) for layer in MLP(2, 7, 5, num_layers).layers]
    assert widths == ([(2, 5)] if num_layers == 1 else [(2, 7), (7, 7), (7, 5)])


@pytest.mark.parametrize('activation', [nn.GELU, nn.ReLU])
def test_mlp_block_by_hand(activation):
    block = MLPBlock(3, 8, activation)
    x = torch.randn(4, 3)
    hidden = activation()(x @ block.lin1.weight.t() + block.lin1.bias)
    torch.testing.assert_close(block(x), hidden @ block.lin2.weight.t() + block.lin2.bias)
