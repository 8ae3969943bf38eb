"""SAM's prompt encoder: boxes, points and masks to sparse and dense embeddings."""

import math

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from .layers import LayerNorm2d


class SAMPromptEncoder(BaseModule):
    """Encode the prompts of P objects, which may belong to several images.

    Source: segment_anything/modeling/prompt_encoder.py @ 6fdee8f.

    Args:
        embed_dim: channels C of the embeddings.
        image_size: side S of the padded square in px, by which coordinates are divided.
        mask_in_chans: inner channels of the mask encoder.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        image_size: int = 1024,
        mask_in_chans: int = 16,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.embed_dim = embed_dim
        self.image_size = image_size
        self.grid_size = image_size // 16
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        # background point, foreground point, top-left corner, bottom-right corner
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def get_dense_pe(self) -> Tensor:
        """Positional encoding (1, C, S/16, S/16) of the embedding grid, without gradient."""
        return self.pe_layer.of_grid(self.grid_size)[None]

    def forward(
        self,
        boxes: Tensor | None = None,
        points: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode the prompts; each kind that is given has P entries.

        Args:
            boxes: (P, 4) xyxy, input px.
            points: coordinates (P, N, 2) in input px and labels (P, N): 1 foreground,
                0 background, -1 padding.
            masks: (P, 1, S/4, S/4) low-res logits of an earlier prediction.

        Returns:
            Sparse embeddings (P, T, C), T = N + 2 with a box, N + 1 with points alone; dense
            embeddings (P, C, S/16, S/16), or (1, C, S/16, S/16) without mask prompts, where all
            prompts share the same one.

        Raises:
            ValueError: no prompt at all, different numbers of prompts, or a point label of
                another value.
        """
        numbers = {
            prompt.shape[0]
            for prompt in (boxes, points[0] if points else None, masks)
            if prompt is not None
        }
        if len(numbers) != 1:
            raise ValueError(f'boxes, points and masks need one common length, got {numbers}')
        sparse = []
        if points is not None:
            # a padding point stands in for the missing box, as in training upstream
            sparse.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            sparse.append(self._embed_boxes(boxes))
        if masks is not None:
            dense = self.mask_downscaling(masks)
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
            dense = dense.expand(-1, -1, self.grid_size, self.grid_size)
        if not sparse:
            sparse.append(dense.new_zeros(numbers.pop(), 0, self.embed_dim))
        return torch.cat(sparse, dim=1), dense

    def _embed_points(self, coords: Tensor, labels: Tensor, pad: bool) -> Tensor:
        """Points (P, N, 2) with labels (P, N) to (P, N or N + 1, C)."""
        if not bool(((labels >= -1) & (labels <= 1)).all()):
            raise ValueError(f'point labels must be -1, 0 or 1, got {labels.unique().tolist()}')
        if pad:
            coords = torch.cat([coords, coords.new_zeros(coords.shape[0], 1, 2)], dim=1)
            labels = torch.cat([labels, labels.new_full((labels.shape[0], 1), -1)], dim=1)
        encoding = self.pe_layer.encode((coords + 0.5) / self.image_size)
        is_point = (labels != -1)[..., None]
        points = self.point_embeddings[:2].parameters()
        kinds = torch.cat([self.not_a_point_embed.weight, *points])
        return encoding * is_point + kinds[labels.long() + 1]

    def _embed_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (P, 4) to their two corners' embeddings (P, 2, C)."""
        corners = (boxes.reshape(-1, 2, 2) + 0.5) / self.image_size
        kinds = torch.cat(list(self.point_embeddings[2:].parameters()))
        return self.pe_layer.encode(corners) + kinds


class PositionEmbeddingRandom(BaseModule):
    """Positions as sines and cosines of random frequencies.

    The frequencies are a random *buffer*: weights are useless without it, hence loading is strict.

    Source: segment_anything/modeling/prompt_encoder.py @ 6fdee8f.
    """

    def __init__(self, num_pos_feats: int) -> None:
        super().__init__()
        self.positional_encoding_gaussian_matrix: Tensor
        self.register_buffer('positional_encoding_gaussian_matrix', torch.randn(2, num_pos_feats))
        self._last_grid: tuple[Tensor, int, int, Tensor] | None = None

    def encode(self, coords: Tensor) -> Tensor:
        """Coordinates (..., 2), (x, y) in [0, 1], to (..., C), in float32 also under autocast."""
        with torch.autocast(coords.device.type, enabled=False):
            frequencies = self.positional_encoding_gaussian_matrix.float()
            angles = 2 * math.pi * ((2 * coords.float() - 1) @ frequencies)
            return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, grid_size: int) -> Tensor:
        """Encoding (C, grid, grid) of the centres of a square grid's cells."""
        device = self.positional_encoding_gaussian_matrix.device
        centres = (torch.arange(grid_size, device=device, dtype=torch.float32) + 0.5) / grid_size
        y, x = torch.meshgrid(centres, centres, indexing='ij')
        return self.encode(torch.stack([x, y], dim=-1)).permute(2, 0, 1)

    @torch.no_grad()
    def of_grid(self, grid_size: int) -> Tensor:
        """As ``forward``, but computed anew only after the frequencies have changed.

        Every step asks for it once more for each of its clicks.
        """
        matrix = self.positional_encoding_gaussian_matrix
        if matrix.is_inference():  # without a count of its changes
            return self(grid_size)
        if self._last_grid is not None:
            seen, version, size, encoding = self._last_grid
            if seen is matrix and version == matrix._version and size == grid_size:
                return encoding
        with torch.inference_mode(False):  # a training may use it later
            encoding = self(grid_size)
        if type(encoding) is Tensor:  # none without memory, on which shapes alone are tried
            self._last_grid = matrix, matrix._version, grid_size, encoding
        return encoding
