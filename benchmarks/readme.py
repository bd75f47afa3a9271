r"""Writes the table of the README from the reports of :obj:`recommended`, which
train all variants with the same settings:

    python -m benchmarks.readme
"""

from __future__ import annotations

import glob
import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.text import group, markdown, spread
from motor_geo.report.write import read_runs
from motor_geo.utils.files import atomic_write

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
START, END = '<!-- results:start -->\n', '<!-- results:end -->'
#: Variants in the order of columns, and their names there.
COLUMNS = {
    'id': '`id`',
    'features': '`features`',
    'specific': '`specific`',
    'mean': '`mean`',
    'mean + behavior': '`mean`, behavior',
    'recommended': 'recommended',
}


def read(folder: str) -> list[dict[str, Any]]:
    r"""What the reports in a folder measured, a row per run. A report on one
    data set (:obj:`recommended-DATA.jsonl`) takes the place of what one on
    several says of it.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    paths = glob.glob(osp.join(folder, 'recommended*.jsonl'))
    for path in sorted(paths, key=lambda path: osp.splitext(path)[0]):
        found.update(group(read_runs(path), lambda row: row['label'][0]))
    return [row for rows in found.values() for row in rows]


def table(rows: Sequence[dict[str, Any]]) -> str:
    r"""Recall@20 on test, the best mean of a data set in bold."""
    lines = []
    for data, mine in group(rows, lambda row: row['label'][0]).items():
        values = group(mine, lambda row: row['label'][2])
        recall = {name: [run['test']['recall@20'] for run in runs] for name, runs in values.items()}
        best = max(recall, key=lambda name: float(np.mean(recall[name])))
        cells = {name: spread(runs) for name, runs in recall.items()}
        cells[best] = f'**{cells[best]}**'
        lines.append(
            [data, max(map(len, recall.values())), *(cells.get(name, '') for name in COLUMNS)]
        )
    return markdown(['data', 'seeds', *COLUMNS.values()], lines)


def main() -> None:
    path = osp.join(ROOT, 'README.md')
    with open(path) as file:
        before, rest = file.read().split(START)
    after = rest.split(END)[1]
    found = table(read(osp.join(ROOT, 'docs', 'reproduction')))
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.write(f'{before}{START}{found}{END}{after}')


if __name__ == '__main__':
    main()
