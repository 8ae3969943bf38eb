"""Prediction of an image that is too large to be seen at once, tile by tile."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmsam.errors import ConfigError
from mmsam.geometry import Window, resize_longest_side_size, scale_boxes
from mmsam.rgb_image import resize_rgb
from mmsam.structures import SAMDataSample
from mmsam.structures.predicted_masks import rles_of_logits
from mmsam.structures.rle import RLE, move_rle

from .prompt_batch import PromptBatch
from .prompted_prediction import PREDICTION_CHUNK, TestPrompts, noisy_boxes, split_by_level
from .tile_merging import TileLogits, blend_tiles, tiles_of_box

if TYPE_CHECKING:
    from .sam_segmentor import SAMSegmentor


def predict_tiled_image(
    model: SAMSegmentor, image: Tensor, sample: SAMDataSample, prompts: TestPrompts
) -> None:
    """Set ``pred_instances`` of a sample with ``tiles``, and ``box_noise`` of its metainfo.

    Each box is predicted in the tiles that ``tiles_of_box`` names, there cut off at the tile's
    edge. Tiles without a box are not looked at.

    Args:
        model: encodes and decodes.
        image: (3, H, W) uint8 RGB, original px.
        sample: with ``prompts.boxes``, original px.
        prompts: what to predict; boxes only.

    Raises:
        ConfigError: points or clicks are asked for, or the image was resized before.
    """
    if prompts.prompt != 'box' or prompts.num_clicks:
        raise ConfigError(
            "model.test_cfg: tiles are predicted with boxes only, expected prompt='box' and "
            f'num_clicks=0, got {prompts.prompt!r} and {prompts.num_clicks}.'
        )
    if tuple(sample.img_shape) != tuple(sample.ori_shape):
        raise ConfigError(
            f'{sample.img_path}: expected a pipeline that does not resize images with tiles, got '
            f'{tuple(sample.img_shape)} of {tuple(sample.ori_shape)}.'
        )
    levels = [sample.prompts.boxes, *noisy_boxes(sample, prompts)]
    rles, qualities = _predict_boxes(model, image, sample, torch.cat(levels))
    count = len(sample.prompts.boxes)
    found = InstanceData(rles=rles[:count], iou_predictions=qualities[:count])
    if prompts.box_noise:
        found.noise_rles = split_by_level(rles[count:], count)
    sample.pred_instances = found


def _predict_boxes(
    model: SAMSegmentor, image: Tensor, sample: SAMDataSample, boxes: Tensor
) -> tuple[list[RLE], Tensor]:
    """Masks and IoU predictions (K,) of boxes (K, 4), original px."""
    boxes = boxes.cpu()
    used = [tiles_of_box(box, sample.tiles, sample.ori_shape) for box in boxes]
    boxes_of_tile = defaultdict(list)
    for index, tiles in enumerate(used):
        for tile in tiles:
            boxes_of_tile[tile].append(index)
    rles: list[RLE] = [{}] * len(boxes)
    parts = defaultdict(list)
    qualities = torch.zeros(len(boxes))
    for tile, indices in sorted(boxes_of_tile.items()):
        window = sample.tiles[tile]
        logits, quality = _predict_tile(model, image, window, boxes[indices])
        for index, low_res, value in zip(indices, logits, quality, strict=True):
            qualities[index] += value / len(used[index])
            if len(used[index]) > 1:
                parts[index].append(TileLogits(window, low_res[0].float().cpu()))
                continue
            size = (window.height, window.width)
            input_size = resize_longest_side_size(size, model.image_size)
            (rle,) = rles_of_logits(low_res[None], input_size, size)
            rles[index] = move_rle(rle, (window.top, window.left), sample.ori_shape)
    for index, tile_logits in parts.items():
        rles[index] = blend_tiles(tile_logits, model.image_size, sample.ori_shape)
    return rles, qualities


def _predict_tile(
    model: SAMSegmentor, image: Tensor, window: Window, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """Low-res logits (P, 1, S/4, S/4) and IoU predictions (P,) of boxes (P, 4), original px."""
    top, left, height, width = window
    size = resize_longest_side_size((height, width), model.image_size)
    pixels = image[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    tile = torch.from_numpy(resize_rgb(pixels, size)).permute(2, 0, 1)
    inputs = model.data_preprocessor({'inputs': [tile]})['inputs']
    corners = boxes - boxes.new_tensor([left, top, left, top])
    corners = corners.clamp(min=0).minimum(corners.new_tensor([width, height, width, height]))
    corners = scale_boxes(corners, (height, width), size).to(inputs.device)
    index = torch.zeros(len(boxes), dtype=torch.int64, device=inputs.device)
    embedding = model.encode_images(inputs)
    predicted = [
        model.decode_best(embedding, part)
        for part in PromptBatch.of_boxes(corners, index).split(PREDICTION_CHUNK)
    ]
    logits, quality = (torch.cat(values) for values in zip(*predicted, strict=True))
    return logits, quality[:, 0].float().cpu()
