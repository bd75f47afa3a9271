import re
import xml.etree.ElementTree as ElementTree

import pytest

from motor_geo.report.document import Figure, Series
from motor_geo.report.sketch import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, key, sketch, ticks


@pytest.mark.parametrize(
    'low, high, expected',
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.03, 0.19, [0.05, 0.1, 0.15]),
        (1, 122, [50, 100]),
        (-3, 3, [-2, 0, 2]),
        (7, 7, [7]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize('scale', [1e-7, 1e-3, 1.0, 3.7, 1e5])
def test_ticks_are_few_and_inside(scale):
    for high in range(1, 60):
        found = ticks(0.3 * scale, (0.3 + high / 7) * scale)
        assert 2 <= len(found) <= 5
        assert 0.2999 * scale <= found[0] and found[-1] <= (0.3001 + high / 7) * scale


def draw(*series):
    figure = Figure('f', 'F', 'line', 'epoch', 'y', series)
    return ElementTree.fromstring(sketch(figure))


def points(node):
    return [tuple(map(float, pair.split(','))) for pair in node.attrib['points'].split()]


def test_lines_reach_the_edges():
    root = draw(Series('a', [1, 2, 5], [2.0, 4.0, 3.0]), Series('b', [1, 5], [3.0, None]))
    lines = {node.attrib['class']: points(node) for node in root.iter('polyline')}
    top, bottom, left, right = TOP, HEIGHT - BOTTOM, LEFT, WIDTH - RIGHT
    quarter, middle = left + (right - left) / 4, (top + bottom) / 2
    expected = [(left, bottom), (quarter, top), (right, middle)]
    for found, wanted in zip(lines['c0'], expected, strict=True):
        assert found == pytest.approx(wanted, abs=0.06)
    assert lines['c1'] == [pytest.approx((left, middle), abs=0.06)]  # Without what is missing.
    last = [node.attrib['class'] for node in root.iter('polyline')][-1]
    assert last == 'c0'  # The first line lies above the others.


def test_a_single_point_is_a_mark():
    root = draw(Series('a', [1, 3], [0.0, 1.0]), Series('best', [2], [0.5]))
    (dot,) = root.iter('circle')
    place = float(dot.attrib['cx']), float(dot.attrib['cy'])
    middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    assert place == pytest.approx(middle, abs=0.06)
    (line,) = (node for node in root.iter('path') if 'mark' in node.attrib['class'])
    assert re.match(r'M([\d.]+) ', line.attrib['d'])[1] == dot.attrib['cx']
    assert 'best' in root.attrib['aria-label']


def test_epochs_are_whole():
    root = draw(Series('a', [1, 2], [0.5, 0.5]))
    labels = [node.text for node in root.iter('text')]
    assert '1' in labels and '2' in labels and '1.5' not in labels


def test_keys_tell_lines_from_marks():
    figure = Figure(
        'f', 'F', 'line', 'x', 'y', [Series('a', [1, 2], [1, 2]), Series('b', [1], [1])]
    )
    assert '<path' in key(figure, 0) and '<circle' in key(figure, 1)
