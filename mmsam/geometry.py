"""Moves sizes, boxes and mask logits between SAM's coordinate frames.

The frames, in the order an image passes them:

- *original px*: the image on disk, size ``original_size`` (H, W);
- *input px*: after the longest side was resized to ``image_size`` S, size ``input_size`` (h, w);
- *padded px*: the input, padded right and bottom to (S, S); coordinates stay those of input px;
- *low-res*: the mask decoder's output, (S/4, S/4), one cell for 4x4 padded px.

Sizes are (h, w), coordinates are (x, y), boxes are xyxy with exclusive far edges.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


LOW_RES_STRIDE = 4
"""Side of a low-res cell in padded px."""


class Window(NamedTuple):
    """A rectangle of an image, px."""

    top: int
    left: int
    height: int
    width: int


class Orientation(NamedTuple):
    """One of the eight ways to lay a rectangle: first mirrored or not, then turned.

    Args:
        is_mirrored: left and right are swapped.
        turns: by 90 degrees counterclockwise, 0 to 3.
    """

    is_mirrored: bool = False
    turns: int = 0

    def flipped(self, direction: str) -> 'Orientation':
        """After one more flip, 'horizontal' or 'vertical'."""
        half_turn = 2 if direction == 'vertical' else 0
        return Orientation(not self.is_mirrored, (half_turn - self.turns) % 4)

    def turned(self, turns: int) -> 'Orientation':
        """After more turns by 90 degrees counterclockwise."""
        return Orientation(self.is_mirrored, (self.turns + turns) % 4)

    def applied_to(self, image: Tensor) -> Tensor:
        """The image (..., h, w), laid so."""
        return torch.rot90(image.flip(-1) if self.is_mirrored else image, self.turns, (-2, -1))


MASK_THRESHOLD = 0.0
"""A logit above this value is foreground, everywhere in mmsam."""


def resize_longest_side_size(original_size: Size, image_size: int) -> Size:
    """Size (h, w) in input px of an image of ``original_size`` (H, W).

    The longest side becomes ``image_size``, the other keeps the ratio, rounded half up and at
    least 1.

    Source: segment_anything/utils/transforms.py @ 6fdee8f, ``get_preprocess_shape``.
    """
    height, width = original_size
    scale = image_size / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def scale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Boxes (K, 4) float xyxy from the frame of ``from_size`` into that of ``to_size``.

    With (original_size, input_size) this is the way into input px; swapped, the way back.
    """
    scale_y, scale_x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return boxes * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])


def scale_points(points: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Points (K, 2) float (x, y), indices of pixels, as ``scale_boxes`` does with boxes.

    The centre of a pixel stays where it is; the index is a whole number no longer.
    """
    scale_y, scale_x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return (points + 0.5) * points.new_tensor([scale_x, scale_y]) - 0.5


def without_padding(masks: Tensor, input_sizes: Tensor) -> Tensor:
    """Masks (P, ..., S, S) bool or uint8 of 0 and 1, padded px, with 0 in the padding.

    The images have the sizes (P, 2) int64, (h, w).
    """
    side = masks.shape[-1]
    inside = torch.arange(side, device=masks.device) < input_sizes[..., None]
    shape = [len(input_sizes), *[1] * (masks.dim() - 3)]
    rows, columns = inside.view(torch.uint8).unbind(1)
    kept = masks.view(torch.uint8) * rows.view(*shape, side, 1)
    return kept.mul_(columns.view(*shape, 1, side)).view(masks.dtype)


def enlarged_masks(low_res_logits: Tensor) -> Tensor:
    """Masks (..., S, S) bool in padded px of the logits (..., S/4, S/4) float.

    They are the pixels of the bilinearly enlarged logits (``align_corners=False``) that are above
    ``MASK_THRESHOLD``, up to the rounding of logits that are on it. Enlarging mixes neighbours, so
    only the pixels of cells with a neighbour on the other side of the threshold are computed.
    """
    logits = low_res_logits.detach().float().flatten(0, -3)
    last = logits.shape[-1] - 1
    above = count_above_around(logits)
    # words of 32 bits hold the 4 px of a row of a cell
    words = (above == 9).int() * 0x01010101
    words = words[:, :, None].expand(-1, -1, LOW_RES_STRIDE, -1).contiguous()
    mask, row, column = ((above > 0) & (above < 9)).nonzero(as_tuple=True)
    steps = torch.arange(-1, 2, device=logits.device)[:, None]
    rows, columns = ((cell + steps).clamp(0, last) for cell in (row, column))
    places = (mask * (last + 1) + rows)[:, None] * (last + 1) + columns
    around = torch.stack(enlarge_cells(*logits.take(places)))  # (4, 3, N), rows by columns
    pixels = [values > MASK_THRESHOLD for values in enlarge_cells(*around.unbind(1))]
    mixed = torch.stack([part.int() << (8 * place) for place, part in enumerate(pixels)]).sum(
        0, dtype=torch.int32
    )
    words[mask, row, :, column] = mixed.T
    side = LOW_RES_STRIDE * (last + 1)
    return words.view(torch.bool).view(*low_res_logits.shape[:-2], side, side)


def count_above_around(low_res_logits: Tensor) -> Tensor:
    """How many of a cell and its eight neighbours are above ``MASK_THRESHOLD``.

    Cells at an edge are their own neighbours beyond it, as for bilinear enlarging.

    Args:
        low_res_logits: (K, S/4, S/4) float.

    Returns:
        (K, S/4, S/4) uint8, 0 to 9.
    """
    above = (low_res_logits > MASK_THRESHOLD).view(torch.uint8)
    for dim in (1, 2):
        last = above.shape[dim] - 1
        before = torch.cat([above.narrow(dim, 0, 1), above.narrow(dim, 0, last)], dim)
        after = torch.cat([above.narrow(dim, 1, last), above.narrow(dim, last, 1)], dim)
        above = before + above + after
    return above


def enlarge_cells(before: Tensor, at: Tensor, after: Tensor) -> tuple[Tensor, ...]:
    """The values of the four px of the low-res cells ``at`` along one side, enlarged bilinearly.

    ``before`` and ``after`` are the cells beside them; all have one shape, as have the results.
    """
    return (
        0.375 * before + 0.625 * at,
        0.125 * before + 0.875 * at,
        0.875 * at + 0.125 * after,
        0.625 * at + 0.375 * after,
    )


def logits_to_original(
    low_res_logits: Tensor, image_size: int, input_size: Size, original_size: Size
) -> Tensor:
    """Logits (K, M, S/4, S/4) in low-res to logits (K, M, H, W) float32 in original px.

    Enlarges to the padded square, crops the padding, resizes to the image; both bilinear
    (``align_corners=False``) and without antialiasing. Threshold at ``MASK_THRESHOLD``.

    Source: segment_anything/modeling/sam.py @ 6fdee8f, ``postprocess_masks``.
    """
    logits = low_res_logits.float()
    logits = F.interpolate(logits, (image_size, image_size), mode='bilinear', align_corners=False)
    logits = logits[..., : input_size[0], : input_size[1]]
    return F.interpolate(logits, original_size, mode='bilinear', align_corners=False)
