import math
import re

import pytest
from html_page import HtmlPage

from mmsam.visualization.report.line_chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    line_chart,
)


def drawn(chart: str) -> list[list[tuple[float, float]]]:
    """Points of each curve, as shares of the plotted area from its lower left."""
    curves = []
    for points in re.findall(r'<polyline points="([^"]*)"', chart):
        pairs = [tuple(map(float, pair.split(','))) for pair in points.split()]
        curves.append(
            [
                (
                    (x - LEFT) / (WIDTH - LEFT - RIGHT),
                    (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM),
                )
                for x, y in pairs
            ]
        )
    return curves


def labels(chart: str) -> tuple[list[str], list[str]]:
    """Labels of the y and of the x axis."""
    return re.findall(r'"end">([^<]*)<', chart), re.findall(r'"middle">([^<]*)<', chart)


def test_points_lie_between_round_numbers():
    chart = line_chart('Loss', [Line('loss', [(0, 0.9), (50, 0.4), (200, 0.1)])], 'iteration')
    # y from 0 to 1 in steps of 0.2, x from 0 to 200 in steps of 50
    assert labels(chart) == (
        ['0', '0.2', '0.4', '0.6', '0.8', '1'],
        ['0', '50', '100', '150', '200', 'iteration'],
    )
    ((first, second, third),) = drawn(chart)
    assert first == pytest.approx((0, 0.9), abs=1e-3)
    assert second == pytest.approx((0.25, 0.4), abs=1e-3)
    assert third == pytest.approx((1, 0.1), abs=1e-3)


def test_x_axis_counts_whole_numbers():
    chart = line_chart('Clicks', [Line('mIoU', [(1, 0.1), (3, 0.9)])], 'clicks')
    assert labels(chart)[1] == ['1', '2', '3', 'clicks']


def test_logarithmic_axis():
    lines = [Line('a', [(1, 1.0), (2, 10.0)]), Line('b', [(1, 100.0), (2, 1000.0)])]
    chart = line_chart('Loss', lines, 'iteration', may_be_log=True)
    assert 'Loss (logarithmic)' in chart
    assert [[round(y, 2) for _, y in curve] for curve in drawn(chart)] == [[0, 0.33], [0.67, 1]]
    assert '(logarithmic)' not in line_chart('Loss', lines, 'iteration')
    zero = [Line('a', [(1, 0.0), (2, 1000.0)])]
    assert '(logarithmic)' not in line_chart('Loss', zero, 'iteration', may_be_log=True)


@pytest.mark.parametrize('value', [0.0, 0.5, -3.0])
def test_one_point_and_a_flat_curve(value):
    for points in ([(7, value)], [(7, value), (8, value)]):
        chart = line_chart('x', [Line('x', points)], 'iteration')
        (curve,) = drawn(chart)
        assert all(0 <= share <= 1 for point in curve for share in point)
        assert len(labels(chart)[0]) >= 2


def test_many_points_are_means_of_neighbours():
    points = [(float(x), float(x % 2)) for x in range(4 * MAX_POINTS)]
    (curve,) = drawn(line_chart('x', [Line('x', points)], 'iteration'))
    assert len(curve) == MAX_POINTS
    assert {round(y, 1) for _, y in curve} == {0.5} or len({y for _, y in curve}) == 1


def test_texts_are_escaped_and_names_are_in_the_legend():
    name = '<b>"loss" & ü'
    chart = line_chart(name, [Line(name, [(1, 2.0)]), Line('empty', [])], name)
    page = HtmlPage(chart)  # refuses <b>
    assert page.texts.count(name) >= 3
    assert 'empty' not in page.text


def test_nothing_logged():
    assert 'Nothing was logged yet.' in HtmlPage(line_chart('x', [Line('x', [])], 'y')).text


@pytest.mark.parametrize(
    'values',
    [
        [0.75, math.nextafter(0.75, 1)],
        [0.47214271545271336, 0.4721427154527134],
        [math.nextafter(0.001, 0), 1.0],
        [0.00001, math.nextafter(1.0, 2)],
    ],
)
def test_values_beside_a_tick_or_each_other(values):
    (curve,) = drawn(line_chart('title', [Line('a', list(enumerate(values)))], 'x', True))
    assert [x for x, _ in curve] == [0, 1]
    assert all(-0.01 <= y <= 1.01 for _, y in curve)
