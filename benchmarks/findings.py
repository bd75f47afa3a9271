r"""Generates the page of findings, with the numbers behind each claim, from the
reports:

    python -m benchmarks.findings
"""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import yaml

from benchmarks.text import markdown, spread
from motor_geo.report.write import read_rows, read_runs
from motor_geo.utils.files import atomic_write

DOCS = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'docs')
HEAD = """# Findings

Can tokens replace item IDs? This page lists what our experiments support, and what they do not.
Every claim has a table and links to its reports, which contain all settings, commands and
significance tests.

Generated from `docs/findings.yaml` and `docs/reproduction/*.jsonl` by
`python -m benchmarks.findings`.
"""


def options(axis: Any, key: str) -> dict[str, dict[str, Any]]:
    r"""Returns the options of rows or columns by header."""
    named = axis if isinstance(axis, Mapping) else {name: name for name in axis}
    return {
        str(name): dict(value) if isinstance(value, Mapping) else {key: value}
        for name, value in named.items()
    }


def words(value: Any) -> list[str]:
    r"""Returns a part of a label: none, one or several words."""
    return [str(word) for word in (value if isinstance(value, list) else [value]) if word != '']


def label_of(claim: Mapping[str, Any], cell: Mapping[str, Any]) -> list[str]:
    r"""Returns the label of the runs of a cell."""
    out: list[str] = []
    for part in claim['label']:
        out += words(cell.get(part[1:], '')) if part.startswith('$') else [part]
    if cell.get('suffix'):
        out[-1] += cell['suffix']
    return out


def value_of(run: Mapping[str, Any], part: str | None) -> float:
    r"""Returns the test Recall@20 of all items or of a group of items, or a number
    of a table.
    """
    if 'cells' in run:
        return run['cells'][part]
    return run['test']['recall@20'] if part is None else run['slices'][part]['recall@20']


def table(claim: Mapping[str, Any], reports: Mapping[str, Any]) -> tuple[str, list[str], set[int]]:
    r"""Renders the table of a claim. Also returns the reports of its numbers, and
    the numbers of seeds.

    Raises:
        ValueError: If a row has no run in any column.
    """
    rows, columns = options(claim['rows'], 'row'), options(claim['columns'], 'column')
    values: list[list[list[float]]] = []
    used: dict[str, None] = {}
    for name, row in rows.items():
        values.append([])
        for column in columns.values():
            cell = {'report': claim.get('report', []), **row, **column}
            want, found = label_of(claim, cell), []
            # A later report on the same data replaces an earlier one.
            for report in words(cell['report']):
                now = [run for run in reports[report] if run['label'] == want]
                if now:
                    found = [value_of(run, cell.get('slice')) for run in now]
                    source = report
            if found:
                used[source] = None
            values[-1].append(found)
        if not any(values[-1]):
            raise ValueError(f"The row '{name}' of '{claim['claim']}' has no run.")
    seeds = {len(found) for line in values for found in line if found}
    body = cells(values, claim.get('best', 'row') == 'row')
    head = ['', *columns]
    text = markdown(head, [[name, *line] for name, line in zip(rows, body)])
    return text, list(used), seeds


def cells(values: list[list[list[float]]], by_row: bool) -> list[list[str]]:
    r"""Formats means and deviations, with the best of each row (or column) in
    bold.
    """
    mean = np.array([[np.mean(x) if x else -1.0 for x in line] for line in values])
    best = mean == mean.max(axis=1 if by_row else 0, keepdims=True)
    if mean.shape[1 if by_row else 0] == 1:
        best[:] = False
    return [
        [f'**{spread(x)}**' if x and mark else spread(x) if x else '' for x, mark in zip(*pair)]
        for pair in zip(values, best.tolist())
    ]


def seeds_of(numbers: Iterable[int]) -> str:
    r"""Formats numbers of seeds in words, such as "one or three seeds"."""
    names = [{1: 'one', 2: 'two', 3: 'three'}.get(n, str(n)) for n in sorted(numbers)]
    return ' or '.join(names) + (' seed' if names == ['one'] else ' seeds')


def page(claims: list[dict[str, Any]], reports: Mapping[str, Any]) -> str:
    r"""Renders the page."""
    out = [HEAD]
    for claim in claims:
        if 'section' in claim:
            out.append(f'## {claim["section"]}\n')
            continue
        text, used, seeds = table(claim, reports)
        links = ', '.join(f'[{name}](reproduction/{name}.jsonl)' for name in used)
        out.append(f'### {claim["claim"].rstrip(".")}\n')
        if 'note' in claim:
            out.append(f'{claim["note"].strip()}\n')
        measure = claim.get('measure') or f'Test Recall@20, {seeds_of(seeds)}'
        out.append(f'{text}\n{measure} ({links}).\n')
    return '\n'.join(out)


class Reports(dict[str, Any]):
    r"""The runs of every report, read on demand."""

    def __missing__(self, name: str) -> Any:
        path = osp.join(DOCS, 'reproduction', f'{name}.jsonl')
        self[name] = read_runs(path) or list(read_cells(path))
        return self[name]


def read_cells(path: str) -> Iterator[dict[str, Any]]:
    r"""Yields the numbers in the tables of a report without runs, by column, one
    mapping per row.
    """
    for block in read_rows(path):
        if 'table' in block:
            names = [column['name'] for column in block['columns']]
            for row in block['rows']:
                values = {n: c['mean'] for n, c in zip(names, row['cells']) if isinstance(c, dict)}
                yield {'label': row['label'], 'cells': values}


def render() -> str:
    with open(osp.join(DOCS, 'findings.yaml')) as file:
        return page(yaml.safe_load(file), Reports())


def main() -> None:
    with atomic_write(osp.join(DOCS, 'findings.md')) as temporary, open(temporary, 'w') as file:
        file.write(render())


if __name__ == '__main__':
    main()
