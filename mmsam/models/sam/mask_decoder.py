"""SAM's mask decoder: image and prompt embeddings to mask logits and their predicted quality."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from .image_token_functions import in_autocast_dtype, upscale_and_multiply
from .layers import MLP, LayerNorm2d
from .two_way_transformer import TwoWayTransformer


class SAMMaskDecoder(BaseModule):
    """Decode the masks of P prompts of a ragged batch of B images in one call.

    Source: segment_anything/modeling/mask_decoder.py @ 6fdee8f.

    Args:
        transformer_dim: channels C of the embeddings.
        num_multimask_outputs: masks for an ambiguous prompt, beside the single one.
        transformer_depth, transformer_num_heads, transformer_mlp_dim: of the two-way transformer.
        iou_head_depth, iou_head_hidden_dim: of the MLP that predicts the masks' IoU.
    """

    def __init__(
        self,
        transformer_dim: int = 256,
        num_multimask_outputs: int = 3,
        transformer_depth: int = 2,
        transformer_num_heads: int = 8,
        transformer_mlp_dim: int = 2048,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        dim = transformer_dim
        self.num_mask_tokens = num_multimask_outputs + 1
        self.transformer = TwoWayTransformer(
            transformer_depth, dim, transformer_num_heads, transformer_mlp_dim
        )
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(
            dim, iou_head_hidden_dim, self.num_mask_tokens, iou_head_depth
        )

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_embeddings: Tensor,
        dense_embeddings: Tensor,
        image_index: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks of all prompts.

        Args:
            image_embeddings: (B, C, g, g).
            image_pe: (1, C, g, g).
            sparse_embeddings: (P, T, C).
            dense_embeddings: (P, C, g, g), or (1, C, g, g) shared by all prompts.
            image_index: (P,) int64, ascending: the image of each prompt.
            multimask_output: False gives the single mask (slot 0), True the three of an
                ambiguous prompt (slots 1 to 3).

        Returns:
            Low-res logits (P, M, 4g, 4g) and IoU predictions (P, M), M = 1 or 3.

        Raises:
            ValueError: ``image_index`` is not ascending, or names an image that is not there.
        """
        slots = slice(1, None) if multimask_output else slice(0, 1)
        return self.predict_masks(
            image_embeddings, image_pe, sparse_embeddings, dense_embeddings, image_index, slots
        )

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_embeddings: Tensor,
        dense_embeddings: Tensor,
        image_index: Tensor,
        slots: slice,
    ) -> tuple[Tensor, Tensor]:
        """As ``forward``, with the masks in ``slots``; 0 is the single mask, 1 to 3 are the three.

        For batches in which some prompts are ambiguous and some are not.
        """
        num_prompts, indices = sparse_embeddings.shape[0], image_index.tolist()
        if indices != sorted(indices):
            raise ValueError('prompts must stand in the order of their images')
        num_images = len(image_embeddings)
        if indices and not 0 <= indices[0] <= indices[-1] < num_images:
            raise ValueError(f'image_index must be in [0, {num_images}), got {indices}')
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        output_tokens = output_tokens.expand(num_prompts, -1, -1)
        tokens = torch.cat([output_tokens, sparse_embeddings], dim=1)
        image_embeddings, dense_embeddings = in_autocast_dtype(image_embeddings, dense_embeddings)
        counts: list[int] | None = None
        if dense_embeddings.shape[0] == 1:
            image_tokens = _image_tokens(image_embeddings + dense_embeddings)
            counts = [indices.count(image) for image in range(num_images)]
        else:
            image_tokens = _image_tokens(image_embeddings)[image_index]
            image_tokens = image_tokens + dense_embeddings.flatten(2).transpose(1, 2)
        tokens, image_tokens = self.transformer(
            image_tokens, image_pe[0].flatten(1).t().contiguous(), tokens, counts
        )

        # every slot is computed and one taken, so that no parameter is unused under DDP
        mask_tokens = tokens[:, 1 : 1 + self.num_mask_tokens]
        hyper_in = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )[:, slots]
        grid_size = image_embeddings.shape[-2:]
        low_res_logits = self._upscale_and_multiply(image_tokens, hyper_in, grid_size)
        iou_predictions = self.iou_prediction_head(tokens[:, 0])[:, slots]
        return low_res_logits, iou_predictions

    def _upscale_and_multiply(
        self, image_tokens: Tensor, hyper_in: Tensor, grid_size: torch.Size
    ) -> Tensor:
        """Upscale image tokens (P, N, C) 4x and multiply with (P, M, C/8): (P, M, 4g, 4g).

        A transposed convolution with kernel and stride 2 is a linear map of each token to 2x2
        cells; the cells stay with their token until the product with ``hyper_in`` has left one
        number each.
        """
        first, norm, _, second, _ = self.output_upscaling
        assert isinstance(norm, LayerNorm2d)
        masks = upscale_and_multiply(
            image_tokens,
            hyper_in,
            _transposed_conv_matrix(first),
            (norm.weight, norm.bias),
            norm.eps,
            _transposed_conv_matrix(second),
        )  # (P, M, N, 16)
        num_prompts = len(masks)
        height, width = grid_size
        masks = masks.reshape(num_prompts, hyper_in.shape[1], height, width, 2, 2, 2, 2)
        # (row, column, row of 2x2, column of 2x2, row of inner 2x2, column of inner 2x2)
        masks = masks.permute(0, 1, 2, 4, 6, 3, 5, 7)
        return masks.reshape(num_prompts, hyper_in.shape[1], 4 * height, 4 * width)


def _image_tokens(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) to contiguous tokens (B, h·w, C)."""
    # on a CPU, torch transposes single matrices several times as fast as a batch
    return torch.stack([image.flatten(1).t().contiguous() for image in maps])


def _transposed_conv_matrix(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """A transposed convolution (kernel 2, stride 2) as matrix (C, 4·C') and bias (4·C')."""
    weight, bias = conv.weight, conv.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    return weight.permute(0, 2, 3, 1).flatten(1), bias.repeat(4)
