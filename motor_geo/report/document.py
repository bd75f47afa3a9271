r"""Reports of experiments: tables and figures whose every number names its
runs, and the lines of JSON that keep them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

KINDS = ('metric', 'percent', 'count', 'number', 'text', 'seconds')


class Value(NamedTuple):
    r"""A number in a table.

    Args:
        mean: Mean over runs; :obj:`None` if there is none.
        std: Sample standard deviation over seeds.
        published: The number that was published.
        p: Corrected p-value of the paired test against the reference of the row.
        runs: Names of the runs behind it.
    """

    mean: float | None
    std: float | None = None
    published: float | None = None
    p: float | None = None
    runs: Sequence[str] = ()


class Column(NamedTuple):
    r"""A column of numbers.

    Args:
        name: Its header.
        kind: :obj:`metric` (the higher the better), :obj:`percent` (of
            fractions: 0.123 is +12.3 %), :obj:`count`, :obj:`number`,
            :obj:`text` or :obj:`seconds`.
    """

    name: str
    kind: str = 'metric'


class Row(NamedTuple):
    r"""A row: its labels and, per column, a :class:`Value` or a text."""

    label: Sequence[str]
    cells: Sequence[Value | str]


class Table(NamedTuple):
    r"""A table. In each metric column, the best of the rows with equal first
    label is marked.

    Args:
        name: Of letters, digits, '_' and '-'.
        title: Its heading.
        head: Headers of the labels.
        columns: The columns after the labels.
        rows: The rows.
        notes: Sentences below it, which may hold :obj:`code` in backticks.
    """

    name: str
    title: str
    head: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


class Series(NamedTuple):
    r"""A line, the bars of one color, or a row of a heat map.

    Args:
        label: Its name.
        x: Positions on a line; of no effect otherwise.
        y: Values; :obj:`None` where there is none.
        std: Standard deviations of lines and bars.
        runs: Names of the runs behind it.
        published: Whether the values were published rather than measured.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    std: Sequence[float | None] | None = None
    runs: Sequence[str] = ()
    published: bool = False


class Figure(NamedTuple):
    r"""A figure.

    Args:
        name: Of letters, digits, '_' and '-'; also that of the file.
        title: Its heading.
        kind: :obj:`line`, :obj:`bar` or :obj:`heat`.
        xlabel: What is on the horizontal axis, with its unit.
        ylabel: What the values are, with their unit.
        series: The series.
        categories: Names of the groups of bars, of the columns of a heat map, or of
            the positions 0, 1, ... on a line.
        logx: Whether the horizontal axis of lines is logarithmic.
        fill: Labels of two lines at the same positions between which the gain
            is shaded: green where the second is above, red where it is below.
        panels: Neighbors with the same value stand side by side on wide screens.
    """

    name: str
    title: str
    kind: str
    xlabel: str
    ylabel: str
    series: Sequence[Series]
    categories: Sequence[str] | None = None
    logx: bool = False
    fill: tuple[str, str] | None = None
    panels: str | None = None


class Text(NamedTuple):
    r"""Paragraphs, lists whose entries begin with '- ', and :obj:`code` in
    backticks; all else is plain.
    """

    title: str
    body: str


Block = Table | Figure | Text


class RunInfo(NamedTuple):
    r"""A run and the command that repeats it."""

    folder: str
    command: str
    seed: int
    seconds: float
    best_epoch: int


class Report(NamedTuple):
    r"""A report; :obj:`intro` is written like :class:`Text`, and the keys of
    :obj:`runs` are the names that numbers give.
    """

    name: str
    title: str
    intro: str
    command: str
    machine: Mapping[str, str]
    blocks: Sequence[Block]
    runs: Mapping[str, RunInfo]

    def numbers(self) -> dict[str, int]:
        r"""References of the runs, from one."""
        return {name: i for i, name in enumerate(self.runs, start=1)}


#: What the name of a report or of a block must be.
NAMING = "expected letters, digits, '_' and '-'"


def valid_name(name: str) -> bool:
    r"""Whether files can be named so."""
    return re.fullmatch(r'[A-Za-z0-9_-]+', name) is not None


def check(report: Report) -> None:
    r"""Raises a :class:`ValueError` for a report that cannot be rendered."""
    names = [block.name for block in report.blocks if not isinstance(block, Text)]
    for name in [report.name, *names]:
        if not valid_name(name):
            raise ValueError(f"Names: {NAMING}, got '{name}'.")
        if names.count(name) > 1:
            raise ValueError(f"Two blocks have the name '{name}'.")
    for block in report.blocks:
        if isinstance(block, Table):
            _check_table(block)
        elif isinstance(block, Figure):
            _check_figure(block)
        for run in runs_of(block):
            if run not in report.runs:
                raise ValueError(f"'{block.title}' refers to the run '{run}', which is missing.")


def _check_table(table: Table) -> None:
    for column in table.columns:
        if column.kind not in KINDS:
            raise ValueError(f"The kind of '{column.name}' must be one of {', '.join(KINDS)}.")
    for row in table.rows:
        if len(row.label) != len(table.head) or len(row.cells) != len(table.columns):
            raise ValueError(f"A row of '{table.name}' does not fit its columns: {row.label}.")
        for value in row.cells:
            if isinstance(value, Value):
                numbers = [x for x in value[:4] if x is not None]
                if not all(map(math.isfinite, numbers)):
                    raise ValueError(f"'{table.name}' holds NaN or infinity at {row.label}.")


def _check_figure(figure: Figure) -> None:
    if figure.kind not in ('line', 'bar', 'heat'):
        raise ValueError(f"The kind of '{figure.name}' must be line, bar or heat.")
    if not figure.series:
        raise ValueError(f"'{figure.name}' has no series.")
    for series in figure.series:
        base = series.x if figure.kind == 'line' else figure.categories or ()
        if len(series.y) != len(base) or len(series.std or base) != len(base):
            raise ValueError(f"'{series.label}' of '{figure.name}' has not one value per position.")
        if figure.logx and min(series.x, default=1) <= 0:
            raise ValueError(f"'{figure.name}' has a logarithmic axis and x = {min(series.x)}.")
    if figure.fill is not None:
        first, second = (
            next((s for s in figure.series if s.label == x), None) for x in figure.fill
        )
        if figure.kind != 'line' or not (first and second and list(first.x) == list(second.x)):
            raise ValueError(f"The 'fill' of '{figure.name}' needs two lines at equal positions.")


def runs_of(block: Block) -> list[str]:
    r"""Names of all runs behind a block, in order of appearance."""
    if isinstance(block, Table):
        cells = [cell for row in block.rows for cell in row.cells]
        found = [run for cell in cells if isinstance(cell, Value) for run in cell.runs]
    elif isinstance(block, Figure):
        found = [run for series in block.series for run in series.runs]
    else:
        found = []
    return list(dict.fromkeys(found))


def to_rows(report: Report, measured: Iterable[Mapping[str, Any]] = ()) -> Iterator[dict[str, Any]]:
    r"""A report as a row of what it is, a row per block, and a row per run.
    Blocks refer to the runs by their numbers, from one.

    Args:
        report: The report.
        measured: What was measured in each run, in the order of :obj:`report.runs`.
    """
    numbers = report.numbers()

    def brief(entry: Any) -> Any:
        r"""The fields that are not at their defaults."""
        if isinstance(entry, str):
            return entry
        default = entry._field_defaults
        out = {k: v for k, v in entry._asdict().items() if k not in default or v != default[k]}
        if 'runs' in out:
            out['runs'] = [numbers[run] for run in out['runs']]
        return out

    yield {
        'report': report.name,
        **{key: getattr(report, key) for key in ('title', 'intro', 'command')},
        'machine': dict(report.machine),
    }
    for block in report.blocks:
        row = brief(block)
        if isinstance(block, Table):
            row['columns'] = [brief(column) for column in block.columns]
            row['rows'] = [
                {'label': label, 'cells': [brief(cell) for cell in cells]}
                for label, cells in block.rows
            ]
        elif isinstance(block, Figure):
            row['series'] = [brief(series) for series in block.series]
        key = 'title' if isinstance(block, Text) else 'name'
        yield {type(block).__name__.lower(): row.pop(key), **row}
    more = iter(measured)
    for name, info in report.runs.items():
        own = info._asdict()
        if info.folder == _folder(name):
            del own['folder']
        yield {'run': name, **own, **next(more, {})}


def _folder(run: str) -> str:
    r"""Where a run usually is, which need not be written down."""
    return f'runs/{run}'


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Report:
    r"""The report of :meth:`to_rows`.

    Raises:
        KeyError: If an entry is missing.
        TypeError: If there is one that does not belong there.
    """
    head, *rest = map(dict, rows)
    runs = {
        row['run']: RunInfo(
            row.get('folder', _folder(row['run'])),
            *(row[key] for key in RunInfo._fields[1:]),
        )
        for row in rest
        if 'run' in row
    }
    names = list(runs)

    def entry(kind: Any, fields: Mapping[str, Any]) -> Any:
        own = [names[number - 1] for number in fields.get('runs', ())]
        return kind(**{**fields, 'runs': tuple(own)})

    blocks: list[Block] = []
    for row in rest:
        if 'table' in row:
            row['columns'] = [Column(**column) for column in row['columns']]
            row['rows'] = [
                Row(
                    line['label'],
                    [c if isinstance(c, str) else entry(Value, c) for c in line['cells']],
                )
                for line in row['rows']
            ]
            blocks.append(Table(row.pop('table'), **row))
        elif 'figure' in row:
            row['series'] = [entry(Series, series) for series in row['series']]
            fill = row.pop('fill', None)
            name = row.pop('figure')
            blocks.append(Figure(name, **row, fill=None if fill is None else tuple(fill)))
        elif 'text' in row:
            blocks.append(Text(row.pop('text'), **row))
    return Report(head.pop('report'), **head, blocks=blocks, runs=runs)
