"""The transformer of SAM's mask decoder: tokens and image attend to each other."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from .attention import TokenImageAttention
from .layers import MLPBlock


class TwoWayTransformer(BaseModule):
    """Update the tokens of P prompts and, for each prompt, the tokens of its image.

    Source: segment_anything/modeling/transformer.py @ 6fdee8f.

    Args:
        depth: number of layers.
        embedding_dim: channels C.
        num_heads: heads of every attention.
        mlp_dim: hidden width of the MLPs.
        attention_downsample_rate: reduction of the width in the attentions with the image.
    """

    def __init__(
        self,
        depth: int,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        attention_downsample_rate: int = 2,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(
                embedding_dim,
                num_heads,
                mlp_dim,
                attention_downsample_rate,
                skip_first_layer_pe=index == 0,
            )
            for index in range(depth)
        )
        self.final_attn_token_to_image = TokenImageAttention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(
        self, image_tokens: Tensor, image_pe: Tensor, tokens: Tensor, counts: list[int] | None
    ) -> tuple[Tensor, Tensor]:
        """Run all layers.

        Args:
            image_tokens: (B, N, C), one for each image, or (P, N, C), one for each prompt.
            image_pe: (N, C), positional encoding of the image tokens.
            tokens: (P, T, C), in the order of the images; also their own positional encoding.
            counts: prompts of each of the B images, sum P; None if ``image_tokens`` has P.

        Returns:
            Tokens (P, T, C) and image tokens (P, N, C).
        """
        queries, keys = tokens, image_tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe, counts)
            counts = None  # from here on every prompt has its own image tokens
        attended = self.final_attn_token_to_image.token_to_image(
            queries + tokens, keys, image_pe, counts
        )
        return self.norm_final_attn(queries + attended), keys


class TwoWayAttentionBlock(BaseModule):
    """Self-attention of the tokens, token to image, an MLP on the tokens, image to token.

    Args: as ``TwoWayTransformer``; ``skip_first_layer_pe`` leaves the positional encoding out of
        the self-attention, which then has no residual, as in upstream's first layer.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        attention_downsample_rate: int,
        skip_first_layer_pe: bool,
    ) -> None:
        super().__init__()
        self.self_attn = TokenImageAttention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = TokenImageAttention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = MLPBlock(embedding_dim, mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = TokenImageAttention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        query_pe: Tensor,
        key_pe: Tensor,
        counts: list[int] | None,
    ) -> tuple[Tensor, Tensor]:
        """Queries (P, T, C) and keys (B or P, N, C) to (P, T, C) and (P, N, C)."""
        if self.skip_first_layer_pe:
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)

        attended = self.cross_attn_token_to_image.token_to_image(
            queries + query_pe, keys, key_pe, counts
        )
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))

        keys = self.cross_attn_image_to_token.image_to_token(
            keys, key_pe, queries + query_pe, queries, self.norm4, counts
        )
        return queries, keys
