"""Draws what a prompted model got and predicted for one image, for people to look at."""

import colorsys
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from mmsam.prompt_sampling import PromptKind
from mmsam.structures import SAMDataSample
from mmsam.structures.resized_masks import decode_resized
from mmsam.structures.rle import encode_masks, move_rle

Image = NDArray[np.uint8]
Color = tuple[int, int, int]
Outline = NDArray[np.float64]

PANEL_HEIGHT = 512
PANEL_MAX_WIDTH = 768
PANEL_MIN_WIDTH = 256
TITLE_HEIGHT = 32
GAP = 10
FILL_OPACITY = 0.5
ERROR_OPACITY = 0.8
LUMA_RANGE = (0.4, 0.7)
"""Object colours stay visible on a black as well as on a white image."""
MANY_BOXES = 20
"""From this number on, box lines are thin."""
NEAR = 16
"""Original px around objects that are shown close by."""
DOT_RADIUS = 4
LINE_SHIFT = 4
"""Lines are handed to OpenCV in units of 1/16 px, so that shrunken outlines stay smooth."""

PAPER: Color = (255, 255, 255)
INK: Color = (40, 40, 40)
HIT: Color = (96, 190, 110)
MISSED: Color = (50, 120, 255)
ADDED: Color = (255, 60, 50)


class _Scale(NamedTuple):
    """How original px become panel px: whole-pixel zoom first, then a shrink to ``size``."""

    zoom: int
    shrink: float
    size: tuple[int, int]


def draw_prediction(
    image: Image,
    boxes: NDArray[np.floating],
    truth_rles: Sequence[dict[str, Any]],
    pred_rles: Sequence[dict[str, Any]],
    points: NDArray[np.floating] | None = None,
) -> Image:
    """Draw one image in four panels: prompts, truth, prediction, errors.

    An object has the same colour in the first three panels. The last one marks, over the gray
    image, the pixels of the truth that were found (green), missed (blue) and the pixels added
    to it (red). The panels stand in a row, those of a landscape image two by two. Large images
    are shrunk, small ones enlarged by a whole factor. One object's masks are unpacked at a time,
    so hundreds of objects on a large page are fine.

    Args:
        image: (H, W, 3) uint8 RGB, original px.
        boxes: (K, 4) xyxy of the prompts, original px.
        truth_rles: K compressed COCO RLE dicts of size (H, W).
        pred_rles: K compressed COCO RLE dicts of size (H, W).
        points: (K, 2) (x, y) of the prompts, original px, indices of pixels: drawn instead of the
            boxes.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    scale = _panel_scale(image, PANEL_HEIGHT, PANEL_MAX_WIDTH)
    colors = [_object_color(index) for index in range(len(truth_rles))]
    panel = _fit(image, scale)
    if points is None:
        _draw_boxes(panel, boxes, colors, scale)
        count = '1 prompt box' if len(boxes) == 1 else f'{len(boxes)} prompt boxes'
    else:
        _draw_points(panel, points, colors, scale)
        count = '1 prompt point' if len(points) == 1 else f'{len(points)} prompt points'
    cells = [
        _titled(panel, [(count, INK)]),
        _titled(_masks_panel(image, truth_rles, colors, scale), [('truth', INK)]),
        _titled(
            _masks_panel(image, pred_rles, colors, scale),
            [('prediction' + _score(truth_rles, pred_rles), INK)],
        ),
        _titled(
            _errors_panel(image, truth_rles, pred_rles, scale),
            [('found', HIT), ('missed', MISSED), ('added', ADDED)],
        ),
    ]
    height, width = scale.size
    columns = 2 if width > height else 4
    return _in_rows(cells, columns)


def draw_before_after(
    image: Image,
    truth_rles: Sequence[dict[str, Any]],
    before_rles: Sequence[dict[str, Any]],
    after_rles: Sequence[dict[str, Any]],
) -> Image:
    """Draw one image in three panels side by side: truth, prediction before, prediction after.

    Colours and sizes are those of ``draw_prediction``.

    Args:
        image: (H, W, 3) uint8 RGB, original px.
        truth_rles: K compressed COCO RLE dicts of size (H, W).
        before_rles: K compressed COCO RLE dicts of size (H, W).
        after_rles: K compressed COCO RLE dicts of size (H, W).

    Returns:
        (H', W', 3) uint8 RGB.
    """
    scale = _panel_scale(image, PANEL_HEIGHT, PANEL_MAX_WIDTH)
    colors = [_object_color(index) for index in range(len(truth_rles))]
    titles = ('truth', 'before', 'after')
    cells = []
    for title, rles in zip(titles, (truth_rles, before_rles, after_rles), strict=True):
        score = '' if title == 'truth' else _score(truth_rles, rles)
        panel = _masks_panel(image, rles, colors, scale)
        cells.append(_titled(panel, [(title + score, INK)]))
    return _in_rows(cells, columns=3)


def draw_masks(image: Image, rles: Sequence[dict[str, Any]], max_side: int) -> Image:
    """Draw one panel of masks over the image, without a title.

    Args:
        image: (H, W, 3) uint8 RGB, original px.
        rles: K compressed COCO RLE dicts of size (H, W).
        max_side: of the panel, in px; smaller images are enlarged by a whole factor.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    colors = [_object_color(index) for index in range(len(rles))]
    return _masks_panel(image, rles, colors, _panel_scale(image, max_side, max_side))


def _score(truth_rles: Sequence[dict[str, Any]], pred_rles: Sequence[dict[str, Any]]) -> str:
    """The end of a panel's title; empty without objects."""
    ious = [
        float(mask_utils.iou([pred], [truth], [0])[0, 0])
        for pred, truth in zip(pred_rles, truth_rles, strict=True)
    ]
    return f', mean IoU {np.mean(ious):.2f}' if ious else ''


def draw_sample(inputs: Tensor, data_sample: SAMDataSample) -> Image:
    """Draw what a model gets for one image, in two panels: the first prompts, and the truth.

    An object has the same colour in both. Boxes are drawn as they are given, points as dots, rough
    masks filled.

    Args:
        inputs: (3, h, w) uint8 RGB, input px.
        data_sample: with ``prompts`` and ``gt_instances``, as ``PackSAMInputs`` gives them.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    image = np.ascontiguousarray(inputs.permute(1, 2, 0).numpy())
    size = (image.shape[0], image.shape[1])
    scale = _panel_scale(image, PANEL_HEIGHT, PANEL_MAX_WIDTH)
    prompts, truth = data_sample.prompts, data_sample.gt_instances
    masks = truth.masks.numpy() if 'masks' in truth else decode_resized(truth.rles, size)
    colors = [_object_color(index) for index in range(max(len(prompts), len(masks)))]
    kinds = prompts.get('kinds', torch.zeros(len(prompts)))
    boxed, clicked, masked = (np.flatnonzero(kinds == kind) for kind in PromptKind)
    panel = _fit(image, scale)
    if len(masked):
        rough = prompts.masks.numpy()[masked] > 0.5
        cells = rough.repeat(4, axis=1).repeat(4, axis=2)[:, : size[0], : size[1]]
        panel = _masks_panel(image, encode_masks(cells), [colors[i] for i in masked], scale)
    _draw_boxes(panel, prompts.boxes.numpy()[boxed], [colors[i] for i in boxed], scale)
    if len(clicked):
        _draw_points(panel, prompts.points.numpy()[clicked, 0], [colors[i] for i in clicked], scale)
    counts = [(len(boxed), 'boxes'), (len(clicked), 'points'), (len(masked), 'masks')]
    words = ', '.join(f'{name}: {count}' for count, name in counts if count)
    return _in_rows(
        [
            _titled(panel, [(words or 'no prompt', INK)]),
            _titled(_masks_panel(image, encode_masks(masks), colors, scale), [('truth', INK)]),
        ],
        columns=2,
    )


def _in_rows(cells: list[Image], columns: int) -> Image:
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return np.pad(np.concatenate(rows), ((0, 0), (GAP, 0), (0, 0)), constant_values=PAPER[0])


def draw_objects(
    image: Image,
    boxes: NDArray[np.floating],
    rles: Sequence[dict[str, Any]],
    chosen: Sequence[int],
) -> Image:
    """Draw some objects of one image in two panels: their boxes, and their masks close by.

    The second panel shows the part of the image around them.

    Args:
        image: (H, W, 3) uint8 RGB, original px.
        boxes: (K, 4) xyxy, original px.
        rles: K compressed COCO RLE dicts of size (H, W).
        chosen: indices of the objects to draw; without any, both panels show the mere image.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    chosen_rles = [rles[index] for index in chosen]
    colors = [_object_color(index) for index in range(len(chosen))]
    rows, columns = _surroundings(chosen_rles, image.shape[0], image.shape[1])
    part = np.ascontiguousarray(image[rows, columns])
    shift = (-rows.start, -columns.start)
    part_rles = [move_rle(rle, shift, (part.shape[0], part.shape[1])) for rle in chosen_rles]
    scales = [_panel_scale(each, PANEL_HEIGHT, PANEL_MAX_WIDTH) for each in (image, part)]
    count = '1 object' if len(chosen) == 1 else f'{len(chosen)} objects'
    panels = [
        _draw_boxes(_fit(image, scales[0]), boxes[list(chosen)], colors, scales[0]),
        _masks_panel(part, part_rles, colors, scales[1]),
    ]
    height = max(len(panel) for panel in panels)
    place = f'x {columns.start} to {columns.stop}, y {rows.start} to {rows.stop}'
    cells = [
        _titled(
            np.pad(panel, ((0, height - len(panel)), (0, 0), (0, 0)), constant_values=255),
            [(title, INK)],
        )
        for panel, title in zip(panels, (count, place), strict=True)
    ]
    return _in_rows(cells, columns=2)


def _surroundings(rles: Sequence[dict[str, Any]], height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the part of an image that shows these masks; all without any."""
    if not rles:
        return slice(0, height), slice(0, width)
    rows, columns = _extent(mask_utils.merge(rles))
    return (
        slice(max(0, rows.start - NEAR), min(height, rows.stop + NEAR)),
        slice(max(0, columns.start - NEAR), min(width, columns.stop + NEAR)),
    )


def _panel_scale(image: Image, max_height: int, max_width: int) -> _Scale:
    height, width = image.shape[:2]
    fit = min(max_height / height, max_width / width)
    if fit >= 1:
        zoom = int(fit)
        return _Scale(zoom, 1.0, (height * zoom, width * zoom))
    return _Scale(1, fit, (max(1, round(height * fit)), max(1, round(width * fit))))


def _object_color(index: int) -> Color:
    """A colour unlike those of the objects before: hues go round by the golden ratio."""
    hue = (0.58 + index * 0.618034) % 1.0
    lightness = (0.55, 0.65, 0.47)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.95)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    darkest, lightest = LUMA_RANGE
    white = max(0.0, (darkest - luma) / (1 - luma))
    black = min(1.0, lightest / luma)
    red, green, blue = ((value + (1 - value) * white) * black for value in (red, green, blue))
    return round(red * 255), round(green * 255), round(blue * 255)


def _enlarge(pixels: Image, zoom: int) -> Image:
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _fit(pixels: Image, scale: _Scale) -> Image:
    """Original px (H, W, 3) to panel px: nearest when enlarged, area means when shrunk."""
    if scale.shrink == 1:
        return _enlarge(pixels, scale.zoom)
    height, width = scale.size
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _draw_boxes(
    panel: Image, boxes: NDArray[np.floating], colors: Sequence[Color], scale: _Scale
) -> Image:
    factor = scale.zoom * scale.shrink
    thickness = 1 if len(boxes) >= MANY_BOXES else 2
    for (x1, y1, x2, y2), color in zip(boxes.astype(float) * factor, colors, strict=True):
        # The far edges are exclusive: the last column of pixels inside is x2 - 1.
        corners = np.array([(x1, y1), (x2 - 1, y1), (x2 - 1, y2 - 1), (x1, y2 - 1)])
        _draw_outline(panel, corners, color, thickness)
    return panel


def _masks_panel(
    image: Image, rles: Sequence[dict[str, Any]], colors: list[Color], scale: _Scale
) -> Image:
    filled = image.copy()
    outlines: list[tuple[Outline, Color]] = []
    areas = np.array([int(mask_utils.area(rle)) for rle in rles], dtype=int)
    # Large objects first: a small one inside a large one stays visible.
    for index in np.argsort(-areas, kind='stable'):
        if areas[index] == 0:
            continue
        rows, columns = _extent(rles[index])
        mask = mask_utils.decode(rles[index])[rows, columns]
        _blend(image[rows, columns], filled[rows, columns], mask > 0, colors[index], FILL_OPACITY)
        origin = (columns.start, rows.start)
        outlines += [(line, colors[index]) for line in _outlines(mask, origin, scale)]
    panel = _fit(filled, scale)
    for line, color in outlines:
        _draw_outline(panel, line, color, thickness=1)  # thicker would hide thin ink
    return panel


def _errors_panel(
    image: Image,
    truth_rles: Sequence[dict[str, Any]],
    pred_rles: Sequence[dict[str, Any]],
    scale: _Scale,
) -> Image:
    # 0 background, 1 found, 2 missed, 3 added; where objects meet the larger one is shown.
    state = np.zeros(image.shape[:2], np.uint8)
    for truth_rle, pred_rle in zip(truth_rles, pred_rles, strict=True):
        either = mask_utils.merge([truth_rle, pred_rle])
        if mask_utils.area(either) == 0:
            continue
        rows, columns = _extent(either)
        truth = mask_utils.decode(truth_rle)[rows, columns]
        pred = mask_utils.decode(pred_rle)[rows, columns]
        codes = np.array([[0, 3], [2, 1]], np.uint8)[truth, pred]
        np.maximum(state[rows, columns], codes, out=state[rows, columns])
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gray_rgb = np.repeat(np.asarray(gray, np.uint8)[..., None], 3, axis=2)
    marked = gray_rgb.copy()
    for code, color, opacity in (
        (1, HIT, FILL_OPACITY),
        (2, MISSED, ERROR_OPACITY),
        (3, ADDED, ERROR_OPACITY),
    ):
        _blend(gray_rgb, marked, state == code, color, opacity)
    return _fit(marked, scale)


def _extent(rle: dict[str, Any]) -> tuple[slice, slice]:
    """Rows and columns that a mask's pixels lie in."""
    x, y, width, height = (int(value) for value in mask_utils.toBbox(rle))
    return slice(y, y + height), slice(x, x + width)


def _blend(
    source: Image, target: Image, where: NDArray[np.bool_], color: Color, opacity: float
) -> None:
    """Write ``color`` over ``source`` into ``target`` at the pixels ``where``, in place."""
    mixed = source[where] * (1 - opacity) + np.array(color) * opacity
    target[where] = np.rint(mixed).astype(np.uint8)


def _outlines(mask: Image, origin: tuple[int, int], scale: _Scale) -> list[Outline]:
    """Outlines (N, 2) in panel px of a mask cut out at ``origin`` (x, y) original px."""
    enlarged = np.ascontiguousarray(_enlarge(mask, scale.zoom))
    found, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    offset = np.array(origin) * scale.zoom
    # Pixel centres sit at +0.5, before and after the shrink.
    return [(line.reshape(-1, 2) + offset + 0.5) * scale.shrink - 0.5 for line in found]


def _draw_outline(panel: Image, points: Outline, color: Color, thickness: int) -> None:
    fixed_point = np.rint(points * 2**LINE_SHIFT).astype(np.int32)
    cv2.polylines(panel, [fixed_point], True, color, thickness, cv2.LINE_AA, LINE_SHIFT)


def _draw_points(
    panel: Image, points: NDArray[np.floating], colors: Sequence[Color], scale: _Scale
) -> None:
    """Dots with a white rim, their centres on those of the pixels ``points`` (x, y)."""
    centres = (points.astype(float) + 0.5) * scale.zoom * scale.shrink - 0.5
    for centre, color in zip(centres, colors, strict=True):
        x, y = (int(value) for value in np.rint(centre * 2**LINE_SHIFT))
        for radius, fill in ((DOT_RADIUS + 2, PAPER), (DOT_RADIUS, color)):
            cv2.circle(panel, (x, y), radius << LINE_SHIFT, fill, -1, cv2.LINE_AA, LINE_SHIFT)


def _titled(panel: Image, words: list[tuple[str, Color]]) -> Image:
    """The panel below a strip with ``words`` side by side, widened to hold them."""
    height, width = panel.shape[:2]
    cell_size = (TITLE_HEIGHT + height + GAP, max(width, PANEL_MIN_WIDTH) + GAP, 3)
    cell = np.full(cell_size, PAPER, np.uint8)
    cell[TITLE_HEIGHT : TITLE_HEIGHT + height, :width] = panel
    x = 2
    for word, color in words:
        cv2.putText(cell, word, (x, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 1, cv2.LINE_AA)
        x += cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 1)[0][0] + 14
    return cell
