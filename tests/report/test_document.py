import os
import re
import sys
from html.parser import HTMLParser

import pytest

from motor_geo.report import layout as report_text
from motor_geo.report import plot as report_plot
from motor_geo.report.document import Column, Figure, Report, Row, Run, Series, Table, Text, Value
from motor_geo.report.html import html, inline_svg
from motor_geo.report.layout import (
    escape_latex,
    escape_markdown,
    format_value,
    grid,
    latex,
    markdown,
)
from motor_geo.report.plot import svg
from motor_geo.report.write import write

pytest.importorskip('matplotlib')

NASTY = 'a|b <i>&"c" $x_1$ [d](e) *f* `g` \\h #1 ~ % {}'
RUNS = {
    f'r{i}': Run(f'r{i}', f'runs/{i}', f'python -m m --seed {i} | tee "<{i}>"', i, 61.25, 7)
    for i in range(1, 5)
}


def table(**kwargs):
    default = {
        'name': 'main',
        'title': 'Main',
        'head': ['Backbone', 'Items'],
        'columns': [Column('recall@20'), Column('gain', 'percent'), Column('size', 'count')],
        'rows': [
            Row(['GRCN', 'ids'], [Value(0.08, 0.001, 0.081, None, ('r1', 'r2')), '', Value(12345)]),
            Row(
                ['GRCN', 'tokens'],
                [Value(0.0897, 0.0012, p=0.049, runs=('r3',)), Value(0.121), 'many'],
            ),
            Row(['BPR', 'ids'], [Value(0.05, p=0.05), Value(-0.02), Value(None)]),
        ],
    }
    return Table(**{**default, **kwargs})


def line(**kwargs):
    series = [
        Series('ids', [1, 2, 4], [0.1, 0.2, 0.5], [0.01, 0.02, None], ('r1',)),
        Series('tokens', [1, 2, 4], [0.3, 0.3, 0.3], None, ('r4',)),
        Series('ids', [1, 2, 4], [0.1, None, 0.3], published=True),
    ]
    default = {'name': 'curve', 'title': 'Curve', 'kind': 'line', 'series': series}
    return Figure(**{**default, 'xlabel': 'epoch', 'ylabel': 'recall@20', **kwargs})


def bar(**kwargs):
    series = [Series('ids', [], [1.0, 2.0], [0.1, 0.2]), Series('tokens', [], [2.0, None])]
    return line(
        **{'name': 'bars', 'kind': 'bar', 'series': series, 'categories': ['A', 'B'], **kwargs}
    )


def heat(**kwargs):
    return bar(**{'name': 'map', 'kind': 'heat', **kwargs})


def report(*blocks, **kwargs):
    default = {
        'name': 'results',
        'title': 'Results',
        'intro': 'First\nparagraph with `code`.\n\n- one\n- two\n  more',
        'command': 'python -m m \\\n  --out x',
        'machine': {'CPU': 'fast & small'},
        'blocks': blocks
        or [Text('How', 'So.'), table(), line(panels='x'), bar(panels='x'), heat()],
        'runs': RUNS,
    }
    return Report(**{**default, **kwargs})


@pytest.mark.parametrize(
    'mean, std, kind, expected',
    [
        (0.08974, 0.00123, 'metric', '0.0897 ± 0.0012'),
        (0.5, None, 'metric', '0.5000'),
        (-0.00001, None, 'metric', '0.0000'),
        (0.123, None, 'percent', '+12.3 %'),
        (-0.05, 0.012, 'percent', '-5.0 ± 1.2 %'),
        (-0.0001, None, 'percent', '+0.0 %'),
        (1234567, None, 'count', '1,234,567'),
        (1234.5, 10, 'count', '1,234 ± 10'),
        (0.01234, None, 'seconds', '0.012 s'),
        (12.34, 0.5, 'seconds', '12.3 ± 0.5 s'),
        (4321.4, None, 'seconds', '4,321 s'),
        (0.25, None, 'text', '0.25'),
        (3.0, 0.5, 'text', '3 ± 0.5'),
        (None, None, 'metric', '–'),
    ],
)
def test_format_value(mean, std, kind, expected):
    assert format_value(mean, std, kind) == expected


def test_markdown_table():
    expected = r"""
| Backbone | Items | recall@20 | recall@20 (published) | gain | size | runs |
| :-- | :-- | --: | --: | --: | --: | :-- |
| GRCN | ids | 0.0800 ± 0.0010 | 0.0810 |  | 12,345 | [[1]](#run-1)[[2]](#run-2) |
| GRCN | tokens | **0.0897 ± 0.0012**\* | – | +12.1 % | many | [[3]](#run-3) |
| BPR | ids | 0.0500 | – | -2.0 % | – |  |

\* differs from the reference of its row, p \< 0.05 (paired, two-sided, corrected).
"""
    assert expected in markdown(report(table()))


def test_markdown_around_the_table():
    text = markdown(report(Text('How #1', '- `a*b`, a*b\n- c'), line()))
    assert text.startswith(
        '# Results\n\nFirst paragraph with `code`.\n\n- one\n- two more\n\n'
        '```\npython -m m \\\n  --out x\n```\n\n- CPU: fast \\& small\n\n'
        '## How #1\n\n- `a*b`, a\\*b\n- c\n\n'
        '## Curve\n\n![Curve: recall@20 by epoch](curve.svg)\n\n'
        'Runs: ids [[1]](#run-1), tokens [[4]](#run-4)\n\n## Runs\n\n'
    )
    last = '| <a id="run-4"></a>4 | runs/4 | 4 | 7 | 61.2 | '
    assert text.endswith(f'{last}`python -m m --seed 4 \\| tee "<4>"` |\n')


def test_code_with_backticks():
    runs = {'r': Run('r', 'f', 'echo `date`', 0, 1, 1)}
    text = markdown(report(Text('a', 'b'), runs=runs, command='echo ```x```'))
    assert '````\necho ```x```\n````' in text
    assert '| `` echo `date` `` |' in text


def test_without_runs_and_published_values():
    rows = [Row(['a'], [Value(0.1)])]
    text = markdown(report(table(head=['name'], columns=[Column('x')], rows=rows), runs={}))
    assert text.endswith('| name | x |\n| :-- | --: |\n| a | 0.1000 |\n')


def test_best():
    values = [[0.1, 0.3], [0.20001, 0.1], [0.2, None], [0.9, 0.5]]
    labels = ['a', 'a', 'a', 'b']
    rows = [Row([x, ''], [Value(v) for v in vs]) for x, vs in zip(labels, values)]
    columns = [Column('x'), Column('y')]
    layout = grid(table(columns=columns, rows=rows))
    # Equal as printed: both. Alone in its group: none.
    best = [[cell.best for cell in row[2:]] for row in layout.rows]
    assert best == [[False, True], [True, False], [True, False], [False, False]]
    layout = grid(table(columns=[Column('x', 'seconds'), Column('y', 'count')], rows=rows))
    assert not any(cell.best for row in layout.rows for cell in row)


def test_escape_markdown():
    assert escape_markdown('a|b_c *d*\n[e] <f> `g` \\h $i$ ~j & k') == (
        r'a\|b\_c \*d\* \[e\] \<f\> \`g\` \\h \$i\$ \~j \& k'
    )
    assert [escape_markdown(x) for x in ('- a', '1. b', '# c', '-1 d')] == [
        '\\- a',
        '1\\. b',
        '\\# c',
        '-1 d',
    ]


def test_escape_latex():
    assert escape_latex('50% of a_b & c#1 $x$ {y} ~^\\') == (
        r'50\% of a\_b \& c\#1 \$x\$ \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}'
    )
    assert escape_latex('[a]* <b> – ±') == r'{[}a{]}{*} \textless{}b\textgreater{} -- $\pm$'


def test_latex():
    notes = ['See `a_b`, 5%.']
    assert (
        latex(report(line(), table(title='A & B', notes=notes)))
        == r"""% Made by: python -m m \ --out x
% Needs \usepackage{booktabs}.

\begin{table}[t]
\centering
\caption{A \& B}
\label{tab:results-main}
\begin{tabular}{llrrrr}
\toprule
Backbone & Items & recall@20 & recall@20 (published) & gain & size \\
\midrule
GRCN & ids & 0.0800 $\pm$ 0.0010 & 0.0810 &  & 12,345 \\
 & tokens & \textbf{0.0897 $\pm$ 0.0012}$^{*}$ & -- & +12.1 \% & many \\
\addlinespace
BPR & ids & 0.0500 & -- & $-$2.0 \% & -- \\
\bottomrule
\end{tabular}
\par\smallskip{\footnotesize See \texttt{a\_b}, 5\%.\par}
\par\smallskip{\footnotesize {*} differs from the reference of its row, """
        + (r'p \textless{} 0.05 (paired, two-sided, corrected).\par}' + '\n\\end{table}\n')
    )


class Page(HTMLParser):
    r"""Collects what a document holds, and that its tags balance."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag != 'meta':
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == 'id']

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, key):
        return [attrs[key] for name, attrs in self.tags if name == tag and key in attrs]


def page(value):
    svgs = {block.name: svg(block) for block in value.blocks if isinstance(block, Figure)}
    return Page(html(value, svgs))


def test_html_structure():
    text = page(report())
    assert text.all('html', 'lang') == ['en']
    assert 'width=device-width, initial-scale=1' in text.all('meta', 'content')
    assert not {'script', 'link', 'img', 'iframe'} & {tag for tag, _ in text.tags}
    assert set(text.all('th', 'scope')) == {'row', 'col'}
    assert text.all('svg', 'aria-label')[0] == 'Curve: recall@20 by epoch'
    groups = [attrs.get('class') for tag, attrs in text.tags if tag in ('div', 'svg')]
    assert groups == ['scroll', 'panels', 'card', None, 'card', None, 'card', None, 'scroll']


def test_html_links_have_targets():
    text = page(report())
    assert len(text.ids) == len(set(text.ids))
    links = text.all('a', 'href')
    assert all(link[0] == '#' and link[1:] in text.ids for link in links)
    assert [link for link in links if link.startswith('#run-')] == [
        f'#run-{i}' for i in (1, 2, 3, 1, 4)
    ]
    assert text.all('a', 'title')[0] == RUNS['r1'].command
    assert [link for link in links if '-' not in link] == ['#runs']
    assert len([link for link in links if link.startswith('#section-')]) == 5


def test_markdown_links_have_targets():
    text = markdown(report())
    targets = set(re.findall(r'<a id="(.*?)">', text))
    links = set(re.findall(r'\]\(#(.*?)\)', text))
    assert links == targets == {f'run-{i}' for i in range(1, 5)}


def test_html_cells():
    svgs = {}
    text = html(report(table()), svgs)
    link = '<a href="#run-3" title="python -m m --seed 3 | tee &quot;&lt;3&gt;&quot;"'
    assert (
        '<th scope="row">GRCN</th><th scope="row">tokens</th>'
        '<td class="number"><b>0.0897 ± 0.0012</b><abbr title="p = 0.049">*</abbr>'
        f'<sup>{link} aria-label="run 3">3</a></sup></td><td class="number">–</td>'
    ) in text


def test_everything_is_escaped():
    rows = [Row([NASTY], [NASTY])]
    blocks = [
        Text(NASTY, NASTY.replace('`', '')),
        table(title=NASTY, head=[NASTY], columns=[Column(NASTY)], rows=rows),
        line(
            title=NASTY, xlabel=NASTY, ylabel=NASTY, series=[Series(NASTY, [1], [1], None, ['r'])]
        ),
    ]
    runs = {'r': Run('r', NASTY, NASTY, 0, 1, 1)}
    value = report(*blocks, title=NASTY, machine={NASTY: NASTY}, command=NASTY, runs=runs)
    text = page(value)
    assert 'i' not in {tag for tag, _ in text.tags}
    assert text.texts.count(NASTY) == 20  # 3 are in the contents, and 3 on the plot.
    assert text.all('a', 'title') == [NASTY]
    assert markdown(value).count(NASTY) == 1  # In the fence of the command.
    body = latex(value).split('booktabs}.')[1]
    assert NASTY not in body
    assert len(re.findall(r'(?<!\\)&', body)) == 2  # Between the cells.
    assert not re.search(r'(?<!\\)%', body)


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


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_write(tmp_path):
    paths = write(report(), str(tmp_path / 'a'))
    assert sorted(map(os.path.basename, paths)) == sorted(os.listdir(tmp_path / 'a'))
    names = ['bars.svg', 'curve.svg', 'map.svg', 'results.html', 'results.md', 'results.tex']
    assert sorted(read(tmp_path / 'a')) == names
    write(report(), str(tmp_path / 'b'))
    assert read(tmp_path / 'a') == read(tmp_path / 'b')
    assert b'\r' not in b''.join(read(tmp_path / 'a').values())


def test_nothing_is_left_when_rendering_fails(tmp_path, monkeypatch):
    write(report(title='old'), str(tmp_path / 'old'))
    before = read(tmp_path / 'old')
    monkeypatch.setattr(report_text, 'latex', lambda report: 1 / 0)
    for folder in ('old', 'new'):
        with pytest.raises(ZeroDivisionError):
            write(report(), str(tmp_path / folder))
    assert os.listdir(tmp_path) == ['old']
    assert read(tmp_path / 'old') == before


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(report_text, 'latex', lambda report: '\ud800')  # Not encodable.
    with pytest.raises(UnicodeEncodeError):
        write(report(), str(tmp_path))
    assert os.listdir(tmp_path) == []


def row(value):
    return [Row(['a', 'b'], [value, '', ''])]


@pytest.mark.parametrize(
    'block, message',
    [
        (table(name='a/b'), "Names: expected letters, digits, '_' and '-', got 'a/b'."),
        (table(columns=[Column('c', 'x')]), "The kind of 'c' must be one of metric, "),
        (table(columns=[]), r"A row of 'main' does not fit its columns: \['GRCN', 'ids'\]."),
        (table(head=['a']), "A row of 'main' does not fit its columns"),
        (table(rows=row(Value(float('nan')))), r"'main' holds NaN or infinity at \['a', 'b'\]."),
        (table(rows=row(Value(1, p=float('inf')))), "'main' holds NaN or infinity"),
        (
            table(rows=row(Value(1, runs=['r9']))),
            "'Main' refers to the run 'r9', which is missing.",
        ),
        (line(kind='pie'), "The kind of 'curve' must be line, bar or heat."),
        (line(series=[]), "'curve' has no series."),
        (line(series=[Series('s', [1], [1], runs=['r9'])]), "'Curve' refers to the run 'r9'"),
        (line(series=[Series('s', [1, 2], [1])]), "'s' of 'curve' has not one value per position."),
        (line(series=[Series('s', [1], [1], [1, 2])]), "'s' of 'curve' has not one value"),
        (bar(categories=['A']), "'ids' of 'bars' has not one value per position."),
        (heat(categories=None), "'ids' of 'map' has not one value per position."),
        (line(series=[Series('s', [0], [1])], logx=True), 'has a logarithmic axis and x = 0.'),
        (line(fill=('ids', 'x')), "The 'fill' of 'curve' needs two lines at equal positions."),
        (bar(fill=('ids', 'tokens')), "The 'fill' of 'bars' needs two lines"),
    ],
)
def test_errors(tmp_path, block, message):
    with pytest.raises(ValueError, match=message):
        write(report(block), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_equal_names(tmp_path):
    with pytest.raises(ValueError, match="Two blocks have the name 'curve'."):
        write(report(line(), line()), str(tmp_path))


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ImportError, match=r'pip install "motor-geo\[reproduce\]"'):
        write(report(line()), str(tmp_path))
    write(report(table()), str(tmp_path))  # Tables do without.
    assert len(os.listdir(tmp_path)) == 3
