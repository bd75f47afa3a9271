r"""Generates the table of the README, the page of results and the page of
findings from the reports in :obj:`docs/reproduction`:

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

Every result on this page comes from a report of `python -m motor_geo.reproduce`. Each report is
one file in `docs/reproduction`. It holds tables and figures, the command and the metrics of every
run, and the versions of all packages. `python -m benchmarks.results` generates this page, the
[findings](findings.md) and the table of the README from these files. The [gallery](gallery.rst)
shows the figures.

## At a glance

Test Recall@20, mean and standard deviation over seeds. A cell without a deviation has one seed.
Every method selects its setting on validation, except the rows with the usual weight, which
is the default. Do not compare numbers across papers before you check settings, early stopping
and splits: the reports below state them.

"""
SOURCES = """
An empty cell was not measured. baby has no content features here. The items are:

| items | item representation |
|---|---|
| `recommended` | averages of content tokens and collaborative tokens |
| `two-orders` | first and second order of the same kinds of tokens (`--config two-orders`) |
| `specific` | the network of the paper over content tokens |
| `features` | a linear map of the features |
| `id` | an ID embedding |

The rows come from these reports:

"""
ALL = """
## All reports

"""


def summary(path: Path) -> dict[str, Any]:
    r"""Summarizes a report: its title, data sets, number of seeds and of runs."""
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
    r"""Renders the page of results."""
    reports = {name: readme.read(str(folder), name) for name in {name for name, *_ in readme.ROWS}}
    every = [summary(path) for path in sorted(folder.glob('*.jsonl'))]
    used = [
        [f'`{name}`', ', '.join(link(entry) for entry in every if readme.of(entry['name'], name))]
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
        + markdown(['report', 'title', 'data', 'seeds', 'runs'], lines)
    )


def link(entry: dict[str, Any]) -> str:
    return f'[{entry["name"]}](reproduction/{entry["name"]}.jsonl)'


def main() -> None:
    readme.main()
    findings.main()
    path = osp.join(DOCS, 'results.md')
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.write(page())


if __name__ == '__main__':
    main()
