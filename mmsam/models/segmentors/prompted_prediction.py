"""What a segmentor predicts for the prompts of a validation or test, which the data determine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmsam.errors import ConfigError, DataError
from mmsam.geometry import enlarged_masks
from mmsam.prompt_sampling import centre_click, jitter_boxes, normals
from mmsam.structures import SAMDataSample
from mmsam.structures.predicted_masks import rles_of_logits
from mmsam.structures.resized_masks import decode_resized
from mmsam.structures.rle import RLE

from .prompt_batch import PromptBatch

if TYPE_CHECKING:
    from .sam_segmentor import SAMSegmentor

PREDICTION_CHUNK = 16
"""Prompts that are decoded together."""

_PROMPTS = ('box', 'point')


@dataclass(frozen=True)
class TestPrompts:
    """Prompts of a validation or test, equal for every model.

    Args:
        prompt: 'box': ``pred_instances`` are the masks of ``prompts.boxes``; 'point': those of
            one click, as the first of ``num_clicks``.
        box_noise: standard deviations of jitter, shares of the boxes' sides; for each of them every
            box is predicted once more.
        num_clicks: > 0 predicts every object after 1 to so many clicks, without its box. The first
            is the pixel farthest from the object's boundary, the next ones the centre of the
            largest error; after each, the logits are fed back as mask prompt.
    """

    __test__ = False  # not for pytest

    prompt: str = 'box'
    box_noise: Sequence[float] = ()
    num_clicks: int = 0

    @classmethod
    def of_config(cls, config: Mapping) -> TestPrompts:
        """Check a segmentor's ``test_cfg``.

        Raises:
            ConfigError: an unknown option or a wrong value.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in config if name not in names]
        if unknown:
            raise ConfigError(
                f'test_cfg of SAMSegmentor: expected {", ".join(names)}, got {unknown[0]!r}.'
            )
        self = cls(**config)
        if self.prompt not in _PROMPTS:
            raise ConfigError(f"test_cfg.prompt must be 'box' or 'point', got {self.prompt!r}.")
        if not isinstance(self.num_clicks, int) or self.num_clicks < 0:
            raise ConfigError(f'test_cfg.num_clicks must be >= 0, got {self.num_clicks!r}.')
        noise = self.box_noise
        if not isinstance(noise, list | tuple) or not all(
            isinstance(n, float | int) and n > 0 for n in noise
        ):
            raise ConfigError(f'test_cfg.box_noise must be numbers > 0, got {noise!r}.')
        return self


def predict_image(
    model: SAMSegmentor, image_embedding: Tensor, sample: SAMDataSample, prompts: TestPrompts
) -> None:
    """Set ``pred_instances`` of a sample, and ``box_noise`` of its metainfo.

    Args:
        model: decodes.
        image_embedding: (1, C, S/16, S/16).
        sample: with ``prompts`` and, if there are clicks, ``gt_instances.rles``.
        prompts: what to predict.

    Raises:
        DataError: clicks on objects of a sample whose boxes are not those of its objects.
    """
    boxes = sample.prompts.boxes.to(image_embedding.device)
    found = InstanceData()
    num_clicks = prompts.num_clicks or int(prompts.prompt == 'point')
    if num_clicks:
        if len(sample.gt_instances) != len(boxes):
            raise DataError(
                f'{sample.img_path}: clicks need the objects of the boxes, got {len(boxes)} boxes '
                f'and {len(sample.gt_instances)} objects.'
            )
        clicked, qualities, points = _predict_clicks(model, image_embedding, sample, num_clicks)
    if prompts.prompt == 'point':
        found.rles = [rles[0] for rles in clicked]
        found.iou_predictions = qualities[:, 0]
        found.prompt_points = points
    else:
        found.rles, found.iou_predictions = _predict_boxes(model, image_embedding, sample, boxes)
    if prompts.num_clicks:
        found.click_rles, found.click_iou_predictions = clicked, qualities
    if prompts.box_noise:
        noisy: list[RLE] = []
        for level_boxes in noisy_boxes(sample, prompts):
            level_boxes = level_boxes.to(boxes.device)
            noisy += _predict_boxes(model, image_embedding, sample, level_boxes)[0]
        found.noise_rles = split_by_level(noisy, len(boxes))
    sample.pred_instances = found


def noisy_boxes(sample: SAMDataSample, prompts: TestPrompts) -> list[Tensor]:
    """The boxes (K, 4) of a sample jittered by each level, which are set in its metainfo."""
    if not prompts.box_noise:
        return []
    sample.set_metainfo({'box_noise': tuple(prompts.box_noise)})
    boxes, seeds = sample.prompts.boxes, sample.prompts.seeds
    size = torch.tensor([sample.img_shape], device=boxes.device)
    return [
        jitter_boxes(boxes, size, normals(seeds, level, 4), ratio=ratio, max_pixels=float('inf'))
        for level, ratio in enumerate(prompts.box_noise)
    ]


def split_by_level(rles: Sequence[RLE], count: int) -> list[list[RLE]]:
    """K lists of L masks from the masks of K objects at level 1, those at level 2, and so on."""
    return [list(rles[index::count]) for index in range(count)]


def _predict_boxes(
    model: SAMSegmentor, image_embedding: Tensor, sample: SAMDataSample, boxes: Tensor
) -> tuple[list[RLE], Tensor]:
    """Masks and IoU predictions (K,) of boxes (K, 4), input px."""
    rles: list[RLE] = []
    qualities = [torch.zeros(0)]
    index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    for part in PromptBatch.of_boxes(boxes, index).split(PREDICTION_CHUNK):
        logits, quality = model.decode_best(image_embedding, part)
        rles += rles_of_logits(logits, sample.img_shape, sample.ori_shape)
        qualities.append(quality[:, 0].float().cpu())
    return rles, torch.cat(qualities)


def _predict_clicks(
    model: SAMSegmentor, image_embedding: Tensor, sample: SAMDataSample, num_clicks: int
) -> tuple[list[list[RLE]], Tensor, Tensor]:
    """Masks after each click, K lists of N, IoU predictions (K, N) and the first clicks (K, 2)."""
    results: list[list[RLE]] = []
    qualities = [torch.zeros(0, num_clicks)]
    first_points = [torch.zeros(0, 2)]
    device = image_embedding.device
    height, width = sample.img_shape
    truth_rles = sample.gt_instances.rles
    for start in range(0, len(truth_rles), PREDICTION_CHUNK):
        truths = decode_resized(truth_rles[start : start + PREDICTION_CHUNK], sample.img_shape)
        clicks = [centre_click(truth) for truth in truths]
        points = torch.tensor([[click[:2]] for click in clicks], dtype=torch.float32, device=device)
        index = torch.zeros(len(truths), dtype=torch.int64, device=device)
        first_points.append(points[:, 0].cpu())
        prompts = PromptBatch.of_points(points, index)
        by_click, quality_by_click = [], []
        for number in range(1, num_clicks + 1):
            logits, quality = model.decode_best(image_embedding, prompts)
            by_click.append(rles_of_logits(logits, sample.img_shape, sample.ori_shape))
            quality_by_click.append(quality.float().cpu())
            if number < num_clicks:
                masks = enlarged_masks(logits)[:, 0, :height, :width].cpu().numpy()
                clicks = [centre_click(*pair) for pair in zip(truths, masks, strict=True)]
                click = torch.tensor(clicks, device=device)[:, None]
                prompts = prompts.with_clicks(click[..., :2].float(), click[..., 2])
                prompts = prompts.with_masks(logits)
        results += [list(rles) for rles in zip(*by_click, strict=True)]
        qualities.append(torch.cat(quality_by_click, dim=1))
    return results, torch.cat(qualities), torch.cat(first_points)
