r"""Layout of tables and texts, and reports as Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from motor_geo.report.document import Figure, Report, Table, Value, runs_of

NONE = '–'
STAR = '* differs from the reference of its row, p < 0.05 (paired, two-sided, corrected).'
#: Characters that are no text in LaTeX, or would be taken for an option of a line break.
TEX = {
    '\\': r'\textbackslash{}',
    '^': r'\textasciicircum{}',
    '~': r'\textasciitilde{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '`': r'\textasciigrave{}',
    '[': '{[}',
    ']': '{]}',
    '*': '{*}',
    '–': '--',
    '—': '---',
    '−': '$-$',
    '±': r'$\pm$',
    '×': r'$\times$',
    '≤': r'$\leq$',
    '≥': r'$\geq$',
    '→': r'$\to$',
    **{c: f'\\{c}' for c in '&%$#_{}'},
}


class Cell(NamedTuple):
    r"""A cell as it is printed."""

    text: str
    number: bool = False
    best: bool = False
    p: float | None = None
    runs: Sequence[str] = ()

    @property
    def star(self) -> bool:
        return self.p is not None and self.p < 0.05


class Grid(NamedTuple):
    r"""A table as it is printed, published values apart."""

    head: list[tuple[str, bool]]
    rows: list[list[Cell]]
    notes: list[str]


def format_value(mean: float | None, std: float | None, kind: str) -> str:
    r"""A number with its standard deviation, as text."""
    if mean is None:
        return NONE
    if kind in ('text', 'number'):
        return f'{mean:.4g}' if std is None else f'{mean:.4g} ± {std:.2g}'
    digits = {'metric': 4, 'percent': 1, 'count': 0}.get(kind, 0)
    if kind == 'seconds':
        digits = 3 if abs(mean) < 1 else 1 if abs(mean) < 100 else 0
    scale = 100 if kind == 'percent' else 1

    def number(value: float, style: str = ',') -> str:
        return f'{round(scale * value, digits) + 0.0:{style}.{digits}f}'  # No negative zero.

    out = number(mean, '+,' if kind == 'percent' else ',')
    out = out if std is None else f'{out} ± {number(std)}'
    return out + {'percent': ' %', 'seconds': ' s'}.get(kind, '')


def grid(table: Table) -> Grid:
    r"""Lays out a table."""
    n = len(table.head)
    head = [(name, False) for name in table.head]
    rows = [[Cell(text) for text in row.label] for row in table.rows]
    for j, column in enumerate(table.columns):
        values = [row.cells[j] for row in table.rows]
        best = _best(table, j) if column.kind == 'metric' else set()
        number = column.kind != 'text'
        head.append((column.name, number))
        extra = any(isinstance(v, Value) and v.published is not None for v in values)
        if extra:
            head.append((f'{column.name} (published)', True))
        for i, value in enumerate(values):
            if isinstance(value, str):
                cells = [Cell(value, number), Cell(NONE, True)]
            else:
                text = format_value(value.mean, value.std, column.kind)
                published = format_value(value.published, None, column.kind)
                cells = [Cell(text, number, i in best, value.p, value.runs), Cell(published, True)]
            rows[i] += cells if extra else cells[:1]
    starred = any(cell.star for row in rows for cell in row[n:])
    return Grid(head, rows, [*table.notes, *[STAR] * starred])


def _best(table: Table, j: int) -> set[int]:
    r"""Rows whose value is, as printed, the best of a group that has several."""
    groups: dict[tuple[str, ...], dict[int, float]] = {}
    for i, row in enumerate(table.rows):
        value = row.cells[j]
        if isinstance(value, Value) and value.mean is not None:
            groups.setdefault(tuple(row.label[:1]), {})[i] = round(value.mean, 4)
    several = [group for group in groups.values() if len(group) > 1]
    return {i for group in several for i, value in group.items() if value == max(group.values())}


def rich(body: str) -> Iterator[tuple[str, list[str]]]:
    r"""Yields paragraphs, :obj:`('text', [paragraph])`, and lists,
    :obj:`('list', entries)`.
    """
    for block in re.split(r'\n\s*\n', body.strip()):
        paragraph: list[str] = []
        entries: list[str] = []
        for line in filter(None, map(str.strip, block.split('\n'))):
            if line.startswith('- '):
                entries.append(line[2:].strip())
            elif entries:
                entries[-1] += f' {line}'
            else:
                paragraph.append(line)
        if paragraph:
            yield 'text', [' '.join(paragraph)]
        if entries:
            yield 'list', entries


def inline(text: str, plain: Callable[[str], str], code: Callable[[str], str]) -> str:
    r"""Renders text with :obj:`code` in backticks."""
    parts = re.split(r'`([^`]+)`', text)
    return ''.join(code(part) if i % 2 else plain(part) for i, part in enumerate(parts))


def escape_markdown(text: str) -> str:
    text = re.sub(r'([\\`*_{}\[\]<>|~$&])', r'\\\1', re.sub(r'\s+', ' ', text))
    return re.sub(r'^([-+#]|\d+[.)])(?=\s|$)', _escape_last, text)


def _escape_last(match: re.Match[str]) -> str:
    r"""Escapes what would begin a list or a heading."""
    return f'{match[0][:-1]}\\{match[0][-1]}'


def _ticks(text: str) -> int:
    r"""Length of the longest row of backticks."""
    return max(map(len, re.findall('`+', text)), default=0)


def code_markdown(text: str) -> str:
    text = ' '.join(text.split())
    fence = '`' * (1 + _ticks(text))
    pad = ' ' if text.startswith('`') or text.endswith('`') else ''
    return f'{fence}{pad}{text}{pad}{fence}'


def _block_markdown(text: str) -> str:
    fence = '`' * max(3, 1 + _ticks(text))
    return f'{fence}\n{text}\n{fence}'


def _links(runs: Iterable[str], numbers: dict[str, int]) -> str:
    return ''.join(f'[[{numbers[run]}]](#run-{numbers[run]})' for run in runs)


def _rich_markdown(body: str) -> list[str]:
    out = []
    for kind, parts in rich(body):
        parts = [inline(part, escape_markdown, code_markdown) for part in parts]
        out.append(parts[0] if kind == 'text' else '\n'.join(f'- {part}' for part in parts))
    return out


def _rows_markdown(head: list[tuple[str, bool]], rows: list[list[str]]) -> str:
    rule = ['--:' if number else ':--' for _, number in head]
    lines = [[escape_markdown(name) for name, _ in head], rule, *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell_markdown(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f'**{text}**' if cell.best else text
    return text + r'\*' * cell.star


def _table_markdown(table: Table, numbers: dict[str, int]) -> list[str]:
    layout = grid(table)
    head, rows = layout.head, [[_cell_markdown(cell) for cell in row] for row in layout.rows]
    if runs_of(table):
        head = [*head, ('runs', False)]
        for row, cells in zip(rows, layout.rows):
            runs = dict.fromkeys(run for cell in cells for run in cell.runs)
            row.append(_links(runs, numbers))
    notes = [inline(note, escape_markdown, code_markdown) for note in layout.notes]
    return [_rows_markdown(head, rows), *notes]


def _figure_markdown(figure: Figure, numbers: dict[str, int]) -> list[str]:
    alt = escape_markdown(f'{figure.title}: {figure.ylabel} by {figure.xlabel}')
    out = [f'![{alt}]({figure.name}.svg)']
    runs = [
        f'{escape_markdown(series.label)} {_links(series.runs, numbers)}'
        for series in figure.series
        if series.runs
    ]
    return [*out, f'Runs: {", ".join(runs)}'] if runs else out


def markdown(report: Report) -> str:
    r"""The report in the Markdown of GitHub."""
    numbers = report.numbers()
    out = [f'# {escape_markdown(report.title)}', *_rich_markdown(report.intro)]
    out.append(_block_markdown(report.command.strip()))
    if report.machine:
        pairs = [(escape_markdown(key), escape_markdown(x)) for key, x in report.machine.items()]
        out.append('\n'.join(f'- {key}: {value}' for key, value in pairs))
    for block in report.blocks:
        out.append(f'## {escape_markdown(block.title)}')
        if isinstance(block, Table):
            out += _table_markdown(block, numbers)
        elif isinstance(block, Figure):
            out += _figure_markdown(block, numbers)
        else:
            out += _rich_markdown(block.body)
    if report.runs:
        head = [('run', True), ('folder', False), ('seed', True), ('best epoch', True)]
        head += [('seconds', True), ('command', False)]
        rows = [
            [
                f'<a id="run-{numbers[name]}"></a>{numbers[name]}',
                escape_markdown(run.folder),
                f'{run.seed}',
                f'{run.best_epoch}',
                f'{run.seconds:,.1f}',
                code_markdown(run.command).replace('|', '\\|'),
            ]
            for name, run in report.runs.items()
        ]
        out += ['## Runs', _rows_markdown(head, rows)]
    return '\n\n'.join(out) + '\n'


def escape_latex(text: str) -> str:
    return ''.join(TEX.get(c, c) for c in re.sub(r'\s+', ' ', text))


def _code_latex(text: str) -> str:
    return rf'\texttt{{{escape_latex(text)}}}'


def _cell_latex(cell: Cell) -> str:
    text = escape_latex(cell.text)
    if cell.number:
        text = re.sub(r'^-(?=\d)', '$-$', text)
    text = rf'\textbf{{{text}}}' if cell.best else text
    return text + '$^{*}$' * cell.star


def _table_latex(table: Table, prefix: str) -> str:
    layout = grid(table)
    lines = [
        r'\begin{table}[t]',
        r'\centering',
        rf'\caption{{{escape_latex(table.title)}}}',
        rf'\label{{tab:{prefix}-{table.name}}}',
        rf'\begin{{tabular}}{{{"".join("r" if number else "l" for _, number in layout.head)}}}',
        r'\toprule',
        ' & '.join(escape_latex(name) for name, _ in layout.head) + r' \\',
        r'\midrule',
    ]
    before = None
    for row, cells in zip(table.rows, layout.rows):
        texts = [_cell_latex(cell) for cell in cells]
        if len(row.label) > 1 and before is not None:  # With one label, rows are their own groups.
            if row.label[0] == before:
                texts[0] = ''
            else:
                lines.append(r'\addlinespace')
        before = row.label[0] if row.label else None
        lines.append(' & '.join(texts) + r' \\')
    lines += [r'\bottomrule', r'\end{tabular}']
    for note in layout.notes:
        text = inline(note, escape_latex, _code_latex)
        lines.append(rf'\par\smallskip{{\footnotesize {text}\par}}')
    return '\n'.join([*lines, r'\end{table}'])


def latex(report: Report) -> str:
    r"""The tables of the report, for a document that loads :obj:`booktabs`."""
    lines = [f'% Made by: {" ".join(report.command.split())}', r'% Needs \usepackage{booktabs}.']
    tables = [block for block in report.blocks if isinstance(block, Table)]
    return '\n\n'.join(['\n'.join(lines), *(_table_latex(t, report.name) for t in tables)]) + '\n'
