import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmsam.datasets.readers.segmentations import ellipse_polygon, rle_of_polygons
from mmsam.structures.rle import encode_window


@pytest.mark.parametrize(
    ('radii', 'degrees'), [((30, 30), 0), ((40, 15), 0), ((40, 15), 30), ((15, 40), -120)]
)
def test_ellipse(radii, degrees):
    centre = (70.3, 50.8)
    polygon = ellipse_polygon(centre, radii, degrees)
    mask = mask_api.decode(rle_of_polygons([polygon], (100, 140), 'x', {}))
    x, y = np.meshgrid(np.arange(140) + 0.5 - centre[0], np.arange(100) + 0.5 - centre[1])
    angle = np.deg2rad(degrees)  # y points down: clockwise as the image is seen
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    expected = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
    wrong = np.count_nonzero(mask != expected)
    assert wrong < 0.6 * np.pi * sum(radii)  # of a fringe one pixel wide, by pycocotools' rounding
    assert abs(mask.sum() - np.pi * radii[0] * radii[1]) < 0.03 * np.pi * radii[0] * radii[1]


@pytest.mark.parametrize('radius', [0.5, 3, 100, 4000])
def test_ellipses_are_smooth(radius):
    points = ellipse_polygon((0, 0), (radius, radius)).reshape(-1, 2)
    middles = (points + np.roll(points, 1, axis=0)) / 2
    np.testing.assert_allclose(np.hypot(*points.T), radius)
    assert (radius - np.hypot(*middles.T)).max() < 0.05


@pytest.mark.parametrize('corner', [(0, 0), (3, 4), (0, 9), (15, 0)])
def test_window(corner):
    rng = np.random.default_rng(0)
    window = rng.random((5, 3)) < 0.5
    window[-1] |= corner[0] == 15  # down to the border, on from the other
    window[0] |= corner[0] == 15
    mask = np.zeros((20, 12), np.uint8)
    mask[corner[0] : corner[0] + 5, corner[1] : corner[1] + 3] = window
    assert encode_window(window, corner, (20, 12)) == mask_api.encode(np.asfortranarray(mask))


def test_window_of_whole_columns_joins_their_runs():
    mask = np.zeros((4, 5), np.uint8)
    mask[:, 1:4] = 1
    assert encode_window(mask[:, 1:4] == 1, (0, 1), (4, 5)) == mask_api.encode(
        np.asfortranarray(mask)
    )
    assert mask_api.area(encode_window(np.zeros((0, 3), bool), (0, 0), (4, 5))) == 0
