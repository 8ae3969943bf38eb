"""LoRA as a user may write it: every qkv and proj of the image encoder gets a low-rank addition."""

from torch import Tensor, nn

from mmsam.models import SAMSegmentor

RANK = 16


class PlainLoRA(nn.Module):
    """``layer(x) + b(a(x))``; only a and b train."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.a = nn.Linear(layer.in_features, RANK, bias=False)
        self.b = nn.Linear(RANK, layer.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.b(self.a(x))


def wrap_attention(model: SAMSegmentor) -> None:
    """Replace qkv and proj of all blocks of a model whose ``frozen`` lacks the image encoder."""
    model.image_encoder.requires_grad_(False)
    for block in model.image_encoder.blocks:
        block.attn.qkv = PlainLoRA(block.attn.qkv)
        block.attn.proj = PlainLoRA(block.attn.proj)
