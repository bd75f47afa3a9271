r"""Writes everything that says what was measured, from the reports in :obj:`docs/reproduction`: the
table of the README, the page of results and the page of findings.

python -m benchmarks.results
"""

from __future__ import annotations

import os.path as osp
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import findings, readme
from benchmarks.text import markdown
from motor_geo.report.write import read_rows
from motor_geo.utils.files import atomic_write

DOCS = Path(readme.ROOT, 'docs')
HEAD = """# Results

Every number on this site comes from a report of `python -m motor_geo.reproduce`. A report is
one file in `docs/reproduction`: its tables and figures, every run with its command and its
metrics, and the versions that made it. This page, the table of the README and the
[findings](findings.md) are generated from these files by `python -m benchmarks.results`. The
[gallery](gallery.rst) shows their figures.

## At a glance

Test Recall@20, mean and standard deviation over seeds (no deviation: one seed). Every row
chooses among its settings on validation. Settings, early stopping and data splits are in the
reports named below; a number means little without them.

"""
SOURCES = """
 `recommended` are averages of tokens of content and behavior (with `LightGCN` and `TokenALS`);
`two-orders` is their first and second order (`--config two-orders`); `specific` is the network
of the paper over tokens of content; `features` is a linear map; `id` is the ID embedding. An
empty cell was not measured. baby has no features here.

Rows come from these reports:

"""
ALL = """
## All reports

"""


def summary(path: Path) -> dict[str, Any]:
    r"""What a report says of itself, and how many seeds its methods have."""
    rows = list(read_rows(str(path)))
    runs = [row for row in rows if 'run' in row]
    counts = Counter(tuple(row['label']) for row in runs)
    return {
        'name': path.stem,
        'title': rows[0]['title'].split(': ', 1)[-1],
        'data': ', '.join(dict.fromkeys(row['label'][0] for row in runs)),
        'seeds': max(counts.values(), default=''),
        'runs': len(runs) or '',
    }


def page(folder: Path = DOCS / 'reproduction') -> str:
    r"""The page of results."""
    reports = {name: readme.read(str(folder), name) for name in {name for name, *_ in readme.ROWS}}
    every = [summary(path) for path in sorted(folder.glob('*.jsonl'))]
    used = [
        [f'`{name}`', ', '.join(link(entry) for entry in every if of(entry['name'], name))]
        for name in dict.fromkeys(name for name, *_ in readme.ROWS)
    ]
    lines = [
        [link(entry), *(entry[key] for key in ('title', 'data', 'seeds', 'runs'))]
        for entry in every
    ]
    return (
        HEAD
        + readme.table(reports)
        + SOURCES
        + markdown(['experiment', 'reports'], used)
        + ALL
        + markdown(['report', 'what', 'data', 'seeds', 'runs'], lines)
    )


def link(entry: dict[str, Any]) -> str:
    return f'[{entry["name"]}](reproduction/{entry["name"]}.jsonl)'


def of(report: str, experiment: str) -> bool:
    return report == experiment or report.startswith(f'{experiment}-')


def main() -> None:
    readme.main()
    findings.main()
    path = osp.join(DOCS, 'results.md')
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.write(page())


if __name__ == '__main__':
    main()
