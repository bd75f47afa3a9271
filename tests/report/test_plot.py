import re

import pytest

from motor_geo.report import plot as report_plot
from motor_geo.report.document import Series
from motor_geo.report.plot import inline_svg, svg
from tests.report.examples import bar, heat, line

pytest.importorskip('matplotlib')


def test_inline_svg_keeps_references():
    svgs = [inline_svg(svg(figure), f'{i}-', 'x"y') for i, figure in enumerate([line(), line()])]
    ids = [re.findall(r' id="(.*?)"', text) for text in svgs]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    for text, own in zip(svgs, ids):
        used = re.findall(r'url\(#(.*?)\)', text) + re.findall(r' href="#(.*?)"', text)
        assert used and set(used) <= set(own)
        assert '<style' not in text and 'xlink' not in text
        assert 'aria-label="x&quot;y"' in text


def test_inline_svg_leaves_texts_alone():
    text = inline_svg(svg(line(xlabel='id="a" url(#b)')), 'p-', '')
    assert 'id="a" url(#b)</text>' in text


@pytest.mark.parametrize('figure', [line(), line(logx=True, fill=('ids', 'tokens')), bar(), heat()])
def test_svg(figure, recwarn):
    text = svg(figure)
    for label in (figure.xlabel, figure.ylabel):
        assert f'>{label}</text>' in text
    for series in figure.series:
        name = f'{series.label} (published)' if series.published else series.label
        assert f'>{name}</text>' in text
    for category in figure.categories or ():
        assert f'>{category}</text>' in text
    assert 'date>' not in text
    assert not list(recwarn)


def test_svg_does_not_depend_on_style():
    import matplotlib

    before = svg(line())
    with matplotlib.rc_context({'axes.facecolor': 'red', 'svg.fonttype': 'path'}):
        assert svg(line()) == before
        assert matplotlib.rcParams['axes.facecolor'] == 'red'


@pytest.fixture
def axes():
    from matplotlib.figure import Figure as Canvas

    return Canvas().subplots()


@pytest.mark.parametrize('fill', [None, ('ids', 'tokens')])
def test_lines_show_values_and_deviations(axes, fill):
    ids, tokens, published = report_plot._lines(axes, line(fill=fill))[:3]
    assert ids.get_ydata().tolist() == [0.1, 0.2, 0.5]
    assert [x.get_color() for x in (ids, tokens, published)] == ['#0072B2', '#D55E00', '#0072B2']
    assert (ids.get_linestyle(), published.get_linestyle()) == ('-', '--')
    paths = axes.collections[0].get_paths()
    ys = [y for path in paths for _, y in path.vertices if y == y]
    assert (min(ys), max(ys)) == pytest.approx((0.09, 0.22))
    assert (len(paths) > 1) == (fill is not None)  # Error bars, where a band would be mistaken.


def test_bars_show_values_and_deviations(axes):
    first, second = report_plot._bars(axes, bar())
    assert [patch.get_height() for patch in first] == [1, 2]
    segments = first.errorbar.lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [[0.9, 1.1], [1.8, 2.2]]
    assert second.errorbar is None
    assert first[0].get_x() + first[0].get_width() < second[0].get_x()


def test_heat_map_shows_values(axes):
    report_plot._heat(axes, heat())
    assert [text.get_text() for text in axes.texts] == ['1.00', '2.00', '2.00', '–']
    assert axes.images[0].get_clim() == (1, 2)
    report_plot._heat(axes, heat(series=[Series('a', [], [-1.0, 3.0])]))
    assert axes.images[1].get_clim() == (-3, 3)  # The neutral color is that of zero.


def test_shading():
    shaded = svg(line(fill=('ids', 'tokens')))
    assert '>tokens above ids</text>' in shaded and '>tokens below ids</text>' in shaded
    assert 'above' not in svg(line())
    series = [Series('a', [1, 2], [1, 2]), Series('b', [1, 2], [2, 3])]
    assert 'below' not in svg(line(series=series, fill=('a', 'b')))


@pytest.mark.parametrize('logx, crossing', [(False, 25.25), (True, 10**0.5)])
def test_shading_ends_at_the_crossing(axes, logx, crossing):
    # The lines cross at a quarter of the way, as it is drawn.
    x = [1, 100] if logx else [1, 98]
    series = [Series('a', x, [0, 4]), Series('b', x, [1, 1])]
    above, below = report_plot._shade(axes, line(series=series, fill=('a', 'b'), logx=logx))
    xs = above.get_paths()[0].vertices[:, 0]
    assert (xs.min(), xs.max()) == pytest.approx((1, crossing))
    xs = below.get_paths()[0].vertices[:, 0]
    assert xs.min() == pytest.approx(crossing)
