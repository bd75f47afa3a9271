r"""Draws lines as SVG without Matplotlib, in the colors of the surrounding page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from motor_geo.report.document import Figure, Series

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 44
#: Dash patterns. Lines differ in them, too, so that colors alone carry no meaning.
DASHES = ('none', '7 3', '2 3', '9 3 2 3', '4 4', '12 4')


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    r"""Returns at most :obj:`most` round numbers from :obj:`low` to
    :obj:`high`.
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * f for f in (1, 2, 2.5, 5, 10, 20) if high - low <= (most - 1) * unit * f)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * i for i in range(first, last + 1)]


def sketch(figure: Figure) -> Markup:
    r"""Draws the lines of a figure. A series with a single point becomes a mark,
    a dot on a vertical line.

    Args:
        figure: The figure.
    """
    points = [pair for series in figure.series for pair in _points(series)]
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    left, right = _range(xs)
    low, high = _range(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / (right - left), (y - low) / (high - low)
        inner = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + across * inner[0], HEIGHT - BOTTOM - up * inner[1]

    parts = []
    for y in ticks(low, high):
        _, row = place(left, y)
        parts.append(f'<path class="grid" d="M{LEFT} {row:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, row + 4, 'end', f'{y:.4g}'))
    across = ticks(left, right)
    if all(x == int(x) for x in xs):  # No ticks between two epochs.
        across = [x for x in across if abs(x - round(x)) < 1e-9]
    for x in across:
        column, _ = place(x, low)
        parts.append(_text(column, HEIGHT - BOTTOM + 18, 'middle', f'{x:.4g}'))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, 'middle', figure.xlabel))
    # The first line is drawn above the others, and marks are drawn above all lines.
    order = sorted(range(len(figure.series)), key=lambda i: (len(figure.series[i].x) == 1, -i))
    for number in order:
        series = figure.series[number]
        line = [place(*pair) for pair in _points(series)]
        style = f'class="c{number % len(DASHES)}"'
        if len(series.x) > 1:
            path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in line)
            parts.append(f'<polyline {style} {_dash(number)} points="{path}"/>')
        for x, y in line if len(series.x) == 1 else ():
            parts.append(f'<path class="grid mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
            parts.append(f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
    names = ', '.join(series.label for series in figure.series)
    label = escape(f'{figure.title}, {figure.ylabel} by {figure.xlabel}: {names}')
    body = ''.join(parts)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>'
    )


def key(figure: Figure, number: int) -> Markup:
    r"""Draws the symbol of a series for a legend.

    Args:
        figure: The figure.
        number: Position of the series.
    """
    style = f'class="c{number % len(DASHES)}"'
    shape = f'<path {style} {_dash(number)} d="M1 6H25"/>'
    if len(figure.series[number].x) == 1:
        shape = f'<circle {style} cx="13" cy="6" r="4.5"/>'
    return Markup(f'<svg class="key" viewBox="0 0 26 12" aria-hidden="true">{shape}</svg>')


def _points(series: Series) -> list[tuple[float, float]]:
    pairs = zip(series.x, series.y)
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    r"""Returns the smallest and the largest value, widened if they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _dash(number: int) -> str:
    return f'stroke-dasharray="{DASHES[number % len(DASHES)]}"'


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
