"""All prompts of a ragged batch, as tensors on the device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsam.prompt_sampling import NO_POINT, PromptKind
from mmsam.structures import SAMDataSample

_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
"""From a share of foreground to the logits that a mask prompt consists of.

Source: sam2/modeling/sam2_base.py @ 2b90b9f, ``_use_mask_as_output``.
"""


@dataclass(frozen=True)
class PromptBatch:
    """The prompts of P objects, which may belong to several images, and the clicks so far.

    Args:
        image_index: (P,) int64, ascending: the image of each.
        boxes: (P, 4) float32 xyxy, input px.
        kinds: (P,) int64, values of ``PromptKind``; None if all are boxes.
        points: (P, 1, 2) float32 (x, y), input px, and where the kind is another, anything; None
            if no kind is a point.
        masks: (P, 1, S/4, S/4) float32 logits; None if no object has a mask prompt.
        has_mask: (P,) bool, whose masks count; None where ``masks`` is None, or all count.
        seeds: (P,) int64, what the clicks' randomness depends on; 0 where none are drawn.
        click_coords: (P, N, 2) float32 (x, y), input px.
        click_labels: (P, N) int64: 1 foreground, 0 background, -1 no click.
    """

    image_index: Tensor
    boxes: Tensor
    kinds: Tensor | None
    points: Tensor | None
    masks: Tensor | None
    has_mask: Tensor | None
    seeds: Tensor
    click_coords: Tensor
    click_labels: Tensor

    @classmethod
    def of_samples(
        cls, data_samples: Sequence[SAMDataSample], image_size: int, device: torch.device
    ) -> 'PromptBatch':
        """The prompts of all samples in their order, padded to a square of ``image_size``.

        Objects of a sample without ``kinds`` are boxes, whatever the other samples have.
        """
        prompts = [sample.prompts for sample in data_samples]
        side = image_size // 4

        def joined(name: str, *shape: int, dtype: torch.dtype) -> Tensor | None:
            """The field of all samples, 0 where one lacks it; None where all do."""
            if not any(name in prompt for prompt in prompts):
                return None
            parts = [
                prompt[name].to(device)
                if name in prompt
                else torch.zeros(len(prompt), *shape, dtype=dtype, device=device)
                for prompt in prompts
            ]
            if name == 'masks':
                parts = [_mask_logits(part, side) for part in parts]
            return torch.cat(parts)

        boxes = torch.cat([prompt.boxes.to(device) for prompt in prompts])
        counts = torch.tensor([len(prompt) for prompt in prompts], device=device)
        batch = cls.of_boxes(
            boxes, torch.arange(len(prompts), device=device).repeat_interleave(counts)
        )
        kinds = joined('kinds', dtype=torch.int64)  # 0 is a box
        seeds = joined('seeds', dtype=torch.int64)
        masks = None if kinds is None else joined('masks', side, side, dtype=torch.float32)
        return replace(
            batch,
            kinds=kinds,
            points=joined('points', 1, 2, dtype=torch.float32),
            masks=masks,
            has_mask=None if kinds is None or masks is None else kinds.eq(PromptKind.MASK),
            seeds=batch.seeds if seeds is None else seeds,
        )

    @classmethod
    def of_boxes(cls, boxes: Tensor, image_index: Tensor) -> 'PromptBatch':
        """Boxes (P, 4) xyxy, input px, and the index (P,) of each one's image."""
        return cls(
            image_index=image_index,
            boxes=boxes,
            kinds=None,
            points=None,
            masks=None,
            has_mask=None,
            seeds=torch.zeros_like(image_index),
            click_coords=boxes.new_zeros(len(boxes), 0, 2),
            click_labels=boxes.new_zeros(len(boxes), 0, dtype=torch.int64),
        )

    @classmethod
    def of_points(cls, points: Tensor, image_index: Tensor) -> 'PromptBatch':
        """Foreground points (P, 1, 2), input px, and the index (P,) of each one's image."""
        empty = cls.of_boxes(points.new_zeros(len(points), 4), image_index)
        kinds = torch.full_like(image_index, PromptKind.POINT)
        return replace(empty, kinds=kinds, points=points)

    def __len__(self) -> int:
        return len(self.boxes)

    def split(self, size: int) -> Iterator['PromptBatch']:
        """Parts of at most ``size`` prompts in their order; one empty part if there are none."""
        for start in range(0, max(len(self), 1), size):
            part: dict[str, Any] = {
                name: None if values is None else values[start : start + size]
                for name, values in vars(self).items()
            }
            yield PromptBatch(**part)

    def with_clicks(self, coords: Tensor, labels: Tensor) -> 'PromptBatch':
        """The same prompts with one more click each: (P, 1, 2) and (P, 1)."""
        return replace(
            self,
            click_coords=torch.cat([self.click_coords, coords], dim=1),
            click_labels=torch.cat([self.click_labels, labels], dim=1),
        )

    def with_masks(self, logits: Tensor) -> 'PromptBatch':
        """The same prompts, each with the logits (P, 1, S/4, S/4) of an earlier prediction."""
        return replace(self, masks=logits, has_mask=None)

    def is_kind(self, kind: PromptKind) -> Tensor:
        """Which objects (P,) bool are prompted with ``kind`` first."""
        if self.kinds is None:
            return torch.full_like(self.image_index, kind == PromptKind.BOX, dtype=torch.bool)
        return self.kinds == kind

    def is_ambiguous(self) -> Tensor:
        """Which objects (P,) bool have one point as their only prompt."""
        alone = self.is_kind(PromptKind.POINT) & (self.click_labels == NO_POINT).all(dim=1)
        if self.masks is None:
            return alone
        return alone & ~self.has_mask if self.has_mask is not None else alone & False

    def all_points(self) -> tuple[Tensor, Tensor]:
        """First point and clicks, (P, 1 + N, 2) and (P, 1 + N), where the first is no box.

        A mask has no point in the first place, as in SAM 2, and so the same number of prompt
        tokens as a box or a point.
        """
        is_point = self.is_kind(PromptKind.POINT)
        first = torch.where(is_point, 1, NO_POINT)[:, None]
        if self.points is None:
            points = self.click_coords.new_zeros(len(self), 1, 2)
        else:
            points = self.points * is_point[:, None, None]
        coords = torch.cat([points, self.click_coords], dim=1)
        return coords, torch.cat([first, self.click_labels], dim=1)


def _mask_logits(shares: Tensor, side: int) -> Tensor:
    """Shares of foreground (K, h/4, w/4) to logits (K, 1, side, side)."""
    height, width = shares.shape[-2:]
    padded = F.pad(shares, (0, side - width, 0, side - height))
    return (_MASK_SCALE * padded + _MASK_BIAS)[:, None]
