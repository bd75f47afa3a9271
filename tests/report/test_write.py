import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from motor_geo.report import write as report_write
from motor_geo.report.document import Column, Figure, Row, RunInfo, Series, Table, Text, Value
from motor_geo.report.layout import escape_markdown, format_value
from motor_geo.report.plot import svg
from motor_geo.report.write import read as read_report
from motor_geo.report.write import read_runs, render, render_folder, save, write
from tests.report.examples import NASTY, RUNS, bar, heat, line, report, table

pytest.importorskip('matplotlib')


def markdown(value):
    return render(value, 'md')


def latex(value):
    return render(value, 'tex')


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
    runs = {'r': RunInfo('f', 'echo `date`', 0, 1, 1)}
    text = markdown(report(Text('a', 'b'), runs=runs, command='echo ```x```'))
    assert '````\necho ```x```\n````' in text
    assert '| `` echo `date` `` |' in text


def test_without_runs_and_published_values():
    rows = [Row(['a'], [Value(0.1)])]
    text = markdown(report(table(head=['name'], columns=[Column('x')], rows=rows), runs={}))
    assert text.endswith('| name | x |\n| :-- | --: |\n| a | 0.1000 |\n')


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
    return Page(render(value, 'html', svgs))


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
    text = render(report(table()), 'html', svgs)
    link = '<a href="#run-3" title="python -m m --seed 3 | tee &#34;&lt;3&gt;&#34;"'
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
    runs = {'r': RunInfo(NASTY, NASTY, 0, 1, 1)}
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
    monkeypatch.setattr(report_write, 'render', lambda *args: 1 / 0)
    for folder in ('old', 'new'):
        with pytest.raises(ZeroDivisionError):
            write(report(), str(tmp_path / folder))
    assert os.listdir(tmp_path) == ['old']
    assert read(tmp_path / 'old') == before


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(report_write, 'render', lambda *args: '\ud800')  # Not encodable.
    with pytest.raises(UnicodeEncodeError):
        write(report(), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ImportError, match=r'pip install "motor-geo\[reproduce\]"'):
        write(report(line()), str(tmp_path))
    write(report(table()), str(tmp_path))  # Tables do without.
    assert len(os.listdir(tmp_path)) == 3


SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt"></svg>'
KEPT = sorted(Path(__file__).parents[2].joinpath('docs', 'reproduction').glob('*.jsonl'))


def test_save_and_read(tmp_path):
    value = report(table(notes=['n']), line(fill=('ids', 'tokens'), logx=True), bar(), heat())
    measured = [{'label': [name], 'test': {'recall@20': 1 / 3}} for name in RUNS]
    path = save(value, str(tmp_path / 'first'), measured)
    again = read_report(path)
    assert list(again.runs) == list(RUNS) and again.runs == RUNS
    for kind in ('md', 'tex'):
        assert render(again, kind) == render(value, kind)
    assert page(again).texts == page(value).texts
    assert [row['label'] for row in read_runs(path)] == [[name] for name in RUNS]
    assert [row['test'] for row in read_runs(path)] == [{'recall@20': 0.333333}] * 4
    save(again, str(tmp_path / 'again'), measured)
    assert read(tmp_path / 'again') == read(tmp_path / 'first')


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'expected a report in the first line'),
        ('{"label": []}\n', 'expected a report in the first line'),
        ('{"report": "a"}\n{', 'line 2: expected JSON'),
        ('[1]\n', r'line 1: expected an object, got \[1\]'),
        ('{"report": "a"}\n', 'holds no report'),
    ],
)
def test_files_that_hold_no_report(tmp_path, text, message):
    (tmp_path / 'a.jsonl').write_text(text)
    with pytest.raises(ValueError, match=f"a.jsonl'.*{message}"):
        read_report(str(tmp_path / 'a.jsonl'))


def test_missing_entries_are_named(tmp_path):
    path = save(report(table()), str(tmp_path))
    text = Path(path).read_text()
    for old, new, message in [
        ('"seed":1,', '', "'seed' is missing"),
        ('"head":', '"heads":', 'heads'),
        ('"cells":', '"values":', "'cells' is missing"),
        ('"runs":[3]', '"runs":[9]', 'out of range'),
    ]:
        assert old in text
        Path(path).write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=f'holds no report: .*{message}'):
            read_report(path)


def test_a_report_that_is_not_consistent_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match='does not fit'):
        save(report(table(head=['a'])), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_render_folder(tmp_path):
    save(report(table(), line()), str(tmp_path))
    (tmp_path / 'other.jsonl').write_text('{"epoch": 1}\n')
    write(report(table(), line()), str(tmp_path / 'a'))
    render_folder(str(tmp_path), str(tmp_path / 'b'))
    assert read(tmp_path / 'a') == read(tmp_path / 'b')
    with pytest.raises(ValueError, match="a': expected a report that was kept"):
        render_folder(str(tmp_path / 'a'))


@pytest.mark.parametrize('path', KEPT, ids=lambda path: path.stem)
def test_reports_of_the_repository(path):
    value = read_report(str(path))
    assert value.name == path.stem and len(read_runs(str(path))) == len(value.runs)
    figures = [block.name for block in value.blocks if isinstance(block, Figure)]
    Page(render(value, 'html', dict.fromkeys(figures, SVG)))
    assert latex(value).count(r'\begin{table}') + len(figures) <= len(value.blocks)
    text = markdown(value)
    assert all(f']({name}.svg)' in text for name in figures)
    for own in (block for block in value.blocks if isinstance(block, Table)):
        section = text.split(f'## {escape_markdown(own.title)}\n')[1]
        for row in own.rows:
            start = ''.join(f'| {escape_markdown(label)} ' for label in row.label)
            line = next(line for line in section.split('\n') if line.startswith(f'{start}|'))
            for column, cell in zip(own.columns, row.cells):
                if isinstance(cell, Value):
                    assert format_value(cell.mean, cell.std, column.kind) in line
