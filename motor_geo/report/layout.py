r"""Layout of tables and texts for all formats, and escaping for Markdown and
LaTeX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from motor_geo.report.document import Table, Value

NONE = '–'
STAR = '* differs from the reference of its row, p < 0.05 (paired, two-sided, corrected).'
#: Characters that are special in LaTeX, or that a line break would take as an option.
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
    r"""A formatted cell."""

    text: str
    number: bool = False
    best: bool = False
    p: float | None = None
    runs: tuple[str, ...] = ()

    @property
    def star(self) -> bool:
        r"""Whether the difference is significant."""
        return self.p is not None and self.p < 0.05


class Grid(NamedTuple):
    r"""A formatted table, with published values in columns of their own."""

    head: list[tuple[str, bool]]
    rows: list[list[Cell]]
    notes: list[str]


def format_value(mean: float | None, std: float | None, kind: str) -> str:
    r"""Formats a number with its standard deviation.

    Args:
        mean: The number; :obj:`None` gives a dash.
        std: The standard deviation, if any.
        kind: Kind of the column, see :class:`~.document.Column`.
    """
    if mean is None:
        return NONE
    if kind in ('text', 'number'):
        return f'{mean:.4g}' if std is None else f'{mean:.4g} ± {std:.2g}'
    digits = {'metric': 4, 'percent': 1, 'count': 0}.get(kind, 0)
    if kind == 'seconds':
        digits = 3 if abs(mean) < 1 else 1 if abs(mean) < 100 else 0
    scale = 100 if kind == 'percent' else 1

    def number(value: float, style: str = ',') -> str:
        return f'{round(scale * value, digits) + 0.0:{style}.{digits}f}'  # Avoids negative zero.

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
                cell = Cell(text, number, i in best, value.p, tuple(value.runs))
                cells = [cell, Cell(published, True)]
            rows[i] += cells if extra else cells[:1]
    starred = any(cell.star for row in rows for cell in row[n:])
    return Grid(head, rows, [*table.notes, *[STAR] * starred])


def _best(table: Table, j: int) -> set[int]:
    r"""Returns the rows with the best value of their group, as printed, among
    groups with several rows.
    """
    groups: dict[tuple[str, ...], dict[int, float]] = {}
    for i, row in enumerate(table.rows):
        value = row.cells[j]
        if isinstance(value, Value) and value.mean is not None:
            groups.setdefault(tuple(row.label[:1]), {})[i] = round(value.mean, 4)
    several = [group for group in groups.values() if len(group) > 1]
    return {i for group in several for i, value in group.items() if value == max(group.values())}


def rich(body: str) -> Iterator[tuple[str, list[str]]]:
    r"""Parses a :class:`~.document.Text`. Yields paragraphs as
    :obj:`('text', [paragraph])`, and lists as :obj:`('list', entries)`.
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
    r"""Renders text with :obj:`code` in backticks.

    Args:
        text: The text.
        plain: Renders plain text.
        code: Renders code.
    """
    parts = re.split(r'`([^`]+)`', text)
    return ''.join(code(part) if i % 2 else plain(part) for i, part in enumerate(parts))


def escape_markdown(text: str) -> str:
    r"""Escapes plain text for Markdown."""
    text = re.sub(r'([\\`*_{}\[\]<>|~$&])', r'\\\1', re.sub(r'\s+', ' ', text))
    return re.sub(r'^([-+#]|\d+[.)])(?=\s|$)', _escape_last, text)


def _escape_last(match: re.Match[str]) -> str:
    r"""Escapes a character that would start a list or a heading."""
    return f'{match[0][:-1]}\\{match[0][-1]}'


def _ticks(text: str) -> int:
    r"""Returns the length of the longest sequence of backticks."""
    return max(map(len, re.findall('`+', text)), default=0)


def code_markdown(text: str) -> str:
    r"""Formats inline code for Markdown."""
    text = ' '.join(text.split())
    fence = '`' * (1 + _ticks(text))
    pad = ' ' if text.startswith('`') or text.endswith('`') else ''
    return f'{fence}{pad}{text}{pad}{fence}'


def fence_markdown(text: str) -> str:
    r"""Formats a code block for Markdown."""
    fence = '`' * max(3, 1 + _ticks(text))
    return f'{fence}\n{text}\n{fence}'


def escape_latex(text: str) -> str:
    r"""Escapes plain text for LaTeX."""
    return ''.join(TEX.get(c, c) for c in re.sub(r'\s+', ' ', text))


def number_latex(text: str) -> str:
    r"""Formats a number for LaTeX, with a minus sign instead of a hyphen."""
    return re.sub(r'^-(?=\d)', '$-$', escape_latex(text))


def code_latex(text: str) -> str:
    r"""Formats inline code for LaTeX."""
    return rf'\texttt{{{escape_latex(text)}}}'
