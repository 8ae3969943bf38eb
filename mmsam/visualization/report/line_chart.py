"""Curves as inline SVG, which takes its colours from the page's style."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

Point = tuple[float, float]

WIDTH, HEIGHT = 460, 260
"""Of the drawing, in px; the page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 12, 42
"""Margins around the plotted area."""
COLORS = 7
"""Line colours of the page's style: classes ``c0`` to ``c6``, and ``gray`` of dashed lines."""
MAX_POINTS = 300
"""Points drawn of one line; of more, means of neighbours are drawn."""
MAX_MARKED = 30
"""Up to this number of points, each is marked and tells its value."""
LOGARITHMIC_FROM = 30
"""Ratio of the largest to the smallest value from which the y axis is logarithmic."""
_STEPS = (1, 2, 2.5, 5, 10)
_EQUAL = 1e-12
"""Values that differ by less, as a share of them, are one value, or ticks would fall together."""


class Line(NamedTuple):
    """One curve through (x, y), finite numbers, x ascending."""

    name: str
    points: list[Point]
    is_dashed: bool = False


class _Axis(NamedTuple):
    low: float
    high: float
    is_log: bool

    def share(self, value: float) -> float:
        """Where a value lies, from 0 (low) to 1 (high)."""
        low, high, value = map(math.log, self[:2] + (value,)) if self.is_log else (*self[:2], value)
        return (value - low) / (high - low)


def line_chart(title: str, lines: Sequence[Line], x_label: str, may_be_log: bool = False) -> str:
    """A figure with title, axes, curves and legend; one that says so if there is no point.

    Args:
        title: text above the chart.
        lines: curves; those without a point are left out.
        x_label: text below the x axis.
        may_be_log: make the y axis logarithmic where all values are positive and differ much.
    """
    lines = [line._replace(points=_thinned(line.points)) for line in lines if line.points]
    if not lines:
        return _figure(title, '<p class="note">Nothing was logged yet.</p>')
    x_values = [x for line in lines for x, _ in line.points]
    y_values = [y for line in lines for _, y in line.points]
    is_log = may_be_log and max(y_values) > LOGARITHMIC_FROM * min(y_values) > 0
    y_ticks = (_log_ticks if is_log else _ticks)(min(y_values), max(y_values))
    x_axis = _Axis(min(x_values), max(max(x_values), min(x_values) + 1), False)
    y_axis = _Axis(y_ticks[0], y_ticks[-1], is_log)
    parts = [*_y_labels(y_axis, y_ticks), *_x_labels(x_axis, x_label)]
    parts += [
        _curve(line, _style(line, number), x_axis, y_axis) for number, line in enumerate(lines)
    ]
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}</svg>'
    )
    return _figure(title + ' (logarithmic)' * is_log, svg + _legend(lines))


def _figure(title: str, content: str) -> str:
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{content}</figure>'


def _legend(lines: Sequence[Line]) -> str:
    entries = [
        f'<li class="{_style(line, number)}">{escape(line.name)}</li>'
        for number, line in enumerate(lines)
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _y_labels(axis: _Axis, ticks: Sequence[float]) -> list[str]:
    parts = []
    for tick in ticks:
        y = _y(tick, axis)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return parts


def _x_labels(axis: _Axis, label: str) -> list[str]:
    y = HEIGHT - BOTTOM + 17
    parts = [
        f'<text x="{_x(tick, axis)}" y="{y}" text-anchor="middle">{tick:g}</text>'
        for tick in _ticks(axis.low, axis.high, least_step=1)
        if axis.low <= tick <= axis.high
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [
        *parts,
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(label)}</text>',
    ]


def _style(line: Line, number: int) -> str:
    return 'gray dashed' if line.is_dashed else f'c{number % COLORS}'


def _curve(line: Line, style: str, x_axis: _Axis, y_axis: _Axis) -> str:
    places = [(_x(x, x_axis), _y(y, y_axis)) for x, y in line.points]
    path = ' '.join(f'{x},{y}' for x, y in places)
    marks = [
        f'<circle cx="{place[0]}" cy="{place[1]}" r="3"><title>{escape(line.name)}: '
        f'{value:.4g} at {at:g}</title></circle>'
        for place, (at, value) in zip(places, line.points, strict=True)
    ]
    if len(marks) > MAX_MARKED or line.is_dashed:
        marks = []
    return f'<g class="{style}"><polyline points="{path}"/>{"".join(marks)}</g>'


def _x(value: float, axis: _Axis) -> float:
    return round(LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, axis: _Axis) -> float:
    return round(HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM), 1)


def _thinned(points: list[Point]) -> list[Point]:
    """At most ``MAX_POINTS`` points, each the mean of as many neighbours."""
    group = math.ceil(len(points) / MAX_POINTS)
    groups = [points[start : start + group] for start in range(0, len(points), group)]
    return [(_mean([x for x, _ in part]), _mean([y for _, y in part])) for part in groups]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ticks(low: float, high: float, least_step: float = 0) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, about five; at least two."""
    span = high - low
    if span <= _EQUAL * abs(high):
        span = abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(factor * power for factor in _STEPS if span / 5 <= factor * power * (1 + 1e-9))
    step = max(step, least_step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        last += 1
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from at most ``low`` to at least ``high``, with 2 and 5 between if few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    # one power more on both sides: log10 rounds
    powers = range(first - 1, last + 2)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    start = max(number for number, tick in enumerate(ticks) if tick <= low)
    end = min(number for number, tick in enumerate(ticks) if tick >= high)
    return ticks[start : end + 1]
