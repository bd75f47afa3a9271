r"""Reports of experiments: tables and figures in which every number refers to its
runs, and their representation as rows of JSON.
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
        mean: Mean over runs; :obj:`None` if there is no run.
        std: Sample standard deviation over seeds.
        published: The published number.
        p: Corrected p-value of the paired test against the reference of the row.
        runs: Names of the runs behind the number.
    """

    mean: float | None
    std: float | None = None
    published: float | None = None
    p: float | None = None
    runs: Sequence[str] = ()


class Column(NamedTuple):
    r"""A column of numbers.

    Args:
        name: Header of the column.
        kind: :obj:`metric` (higher is better), :obj:`percent` (shows the
            fraction 0.123 as +12.3 %), :obj:`count`, :obj:`number`,
            :obj:`text` or :obj:`seconds`.
    """

    name: str
    kind: str = 'metric'


class Row(NamedTuple):
    r"""A row of labels, followed by a :class:`Value` or a text per column."""

    label: Sequence[str]
    cells: Sequence[Value | str]


class Table(NamedTuple):
    r"""A table. In each metric column, it highlights the best value among rows
    with the same first label.

    Args:
        name: Name of letters, digits, '_' and '-'.
        title: Heading of the table.
        head: Headers of the labels.
        columns: The columns after the labels.
        rows: The rows.
        notes: Sentences below the table, with :obj:`code` in backticks.
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
        label: Name of the series.
        x: Positions of the points of a line; ignored otherwise.
        y: Values; :obj:`None` for missing ones.
        std: Standard deviations of lines and bars. (default: none)
        runs: Names of the runs behind the series.
        published: If set to :obj:`True`, the values were published rather than
            measured.
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
        name: Name of letters, digits, '_' and '-', also used for the file.
        title: Heading of the figure.
        kind: :obj:`line`, :obj:`bar` or :obj:`heat`.
        xlabel: Label of the horizontal axis, with its unit.
        ylabel: Label of the values, with their unit.
        series: The series.
        categories: Names of the groups of bars, of the columns of a heat map, or of
            the positions 0, 1, ... on a line. (default: none)
        logx: If set to :obj:`True`, the horizontal axis of lines is logarithmic.
        fill: Labels of two lines at the same positions. The area between them is
            green where the second line is above, and red where it is below.
            (default: none)
        panels: Adjacent figures with the same value are side by side on wide
            screens.
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
    r"""A text of paragraphs, lists with entries that start with '- ', and
    :obj:`code` in backticks. Everything else is plain text.
    """

    title: str
    body: str


Block = Table | Figure | Text


class RunInfo(NamedTuple):
    r"""A run and the command that reproduces it."""

    folder: str
    command: str
    seed: int
    seconds: float
    best_epoch: int


class Report(NamedTuple):
    r"""A report. :obj:`intro` has the format of :class:`Text`, and the keys of
    :obj:`runs` are the names that numbers refer to.
    """

    name: str
    title: str
    intro: str
    command: str
    machine: Mapping[str, str]
    blocks: Sequence[Block]
    runs: Mapping[str, RunInfo]

    def numbers(self) -> dict[str, int]:
        r"""Returns the reference number of each run, from one."""
        return {name: i for i, name in enumerate(self.runs, start=1)}


#: The rule for names of reports and blocks.
NAMING = "expected letters, digits, '_' and '-'"


def valid_name(name: str) -> bool:
    r"""Returns whether a name follows :obj:`NAMING`."""
    return re.fullmatch(r'[A-Za-z0-9_-]+', name) is not None


def check(report: Report) -> None:
    r"""Checks that a report can be rendered.

    Args:
        report: The report.

    Raises:
        ValueError: If it cannot.
    """
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
            raise ValueError(f"A row of '{table.name}' does not match its columns: {row.label}.")
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
            raise ValueError(
                f"'{series.label}' of '{figure.name}' does not have one value per position."
            )
        if figure.logx and min(series.x, default=1) <= 0:
            raise ValueError(f"'{figure.name}' has a logarithmic axis and x = {min(series.x)}.")
    if figure.fill is not None:
        first, second = (
            next((s for s in figure.series if s.label == x), None) for x in figure.fill
        )
        if figure.kind != 'line' or not (first and second and list(first.x) == list(second.x)):
            raise ValueError(f"The 'fill' of '{figure.name}' needs two lines at equal positions.")


def runs_of(block: Block) -> list[str]:
    r"""Returns the names of all runs behind a block, in order of appearance."""
    if isinstance(block, Table):
        cells = [cell for row in block.rows for cell in row.cells]
        found = [run for cell in cells if isinstance(cell, Value) for run in cell.runs]
    elif isinstance(block, Figure):
        found = [run for series in block.series for run in series.runs]
    else:
        found = []
    return list(dict.fromkeys(found))


def to_rows(report: Report, measured: Iterable[Mapping[str, Any]] = ()) -> Iterator[dict[str, Any]]:
    r"""Converts a report to rows: one for the report itself, one per block, and
    one per run. Blocks refer to runs by their numbers, from one.

    Args:
        report: The report.
        measured: Measurements with the name of their :obj:`run`. A run may have
            several, such as those of two variants. (default: none)
    """
    numbers = report.numbers()

    def brief(entry: Any) -> Any:
        r"""Returns the fields that differ from their defaults."""
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
    more: dict[str, list[Mapping[str, Any]]] = {}
    for entry in measured:
        more.setdefault(entry['run'], []).append(entry)
    for name, info in report.runs.items():
        own = info._asdict()
        if info.folder == _folder(name):
            del own['folder']
        for entry in more.get(name, [{}]):
            yield {'run': name, **own, **entry}


def _folder(run: str) -> str:
    r"""Returns the default folder of a run, which rows omit."""
    return f'runs/{run}'


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Report:
    r"""Restores a report from the rows of :meth:`to_rows`.

    Args:
        rows: The rows.

    Raises:
        IndexError: If a block refers to a run that does not exist.
        KeyError: If an entry is missing.
        TypeError: If there is an unknown entry.
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
