r"""Generates the table of the README from the reports. To also generate the
pages of results and findings, run :obj:`python -m benchmarks.results`.
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
#: The data sets, in the order of columns.
DATA = ('lastfm', 'tiktok', 'baby', 'sports', 'ml1m')
#: Methods in the order of rows: the reports they are in, their label there without the data set,
#: and the names of model and items.
ROWS = (
    ('recipe', ('Popularity',), 'popularity', 'none'),
    ('recipe', ('ItemKNN',), '`ItemKNN`', '`id`'),
    ('recipe', ('RP3beta',), '`RP3beta`', '`id`'),
    ('recipe', ('EASE',), '`EASE`', '`id`'),
    ('recipe', ('IALS',), '`IALS`', '`id`'),
    ('recommended', ('LightGCN', 'id'), '`LightGCN`', '`id`'),
    ('recommended', ('LightGCN', 'features'), '`LightGCN`', '`features`'),
    ('recommended', ('LightGCN', 'specific'), '`LightGCN`', '`specific`'),
    ('recommended', ('LightGCN', 'recommended'), '`LightGCN`', '`two-orders`'),
    ('whole', ('LightGCN', 'id'), '`LightGCN`, `--loss whole`', '`id`'),
    ('whole', ('LightGCN', 'recommended'), '`LightGCN`, `--loss whole`', '`recommended`'),
    ('recipe', ('id',), '`TokenALS`', '`id`'),
    ('recipe', ('features',), '`TokenALS`', '`features`'),
    ('recipe', ('recommended',), '`TokenALS`', '`recommended`'),
    ('recipe', ('id, untuned',), '`TokenALS`, usual weight', '`id`'),
    ('recipe', ('recommended, untuned',), '`TokenALS`, usual weight', '`recommended`'),
)
#: Rows of the README, by model and items: the simplest and the strongest baseline, the usual graph
#: backbone with its published loss, and both models under least squares over all pairs.
README = (
    ('popularity', 'none'),
    ('`IALS`', '`id`'),
    ('`LightGCN`', '`id`'),
    ('`LightGCN`', '`features`'),
    ('`LightGCN`', '`specific`'),
    ('`LightGCN`', '`two-orders`'),
    ('`LightGCN`, `--loss whole`', '`id`'),
    ('`LightGCN`, `--loss whole`', '`recommended`'),
    ('`TokenALS`', '`id`'),
    ('`TokenALS`', '`recommended`'),
)


def of(report: str, experiment: str) -> bool:
    r"""Whether a report is that of an experiment, on several data sets or on one. Those on
    changed data have other names.
    """
    return report in (experiment, *(f'{experiment}-{data}' for data in DATA))


def read(folder: str, name: str) -> list[dict[str, Any]]:
    r"""Reads the measurements in the reports of an experiment, one row per run.
    For its data set, a report on one data set (:obj:`NAME-DATA.jsonl`) replaces
    a report on several data sets.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    names = sorted(osp.splitext(file)[0] for file in glob.glob('*.jsonl', root_dir=folder))
    for path in (osp.join(folder, f'{report}.jsonl') for report in names if of(report, name)):
        found.update(group(read_runs(path), lambda row: row['label'][0]))
    return [row for rows in found.values() for row in rows]


def table(
    reports: dict[str, Sequence[dict[str, Any]]], shown: Sequence[tuple[str, str]] | None = None
) -> str:
    r"""Recall@20 on test, the best mean of a data set in bold. The best is that of all methods,
    whether it is among the rows shown or not.

    Args:
        reports: The runs of every report.
        shown: Model and items of the rows to show; :obj:`None` shows all.
    """
    cells: dict[tuple[int, str], list[float]] = {}
    for position, (report, label, *_) in enumerate(ROWS):
        for row in reports.get(report, ()):
            if tuple(row['label'][1:]) == label:
                key = position, row['label'][0]
                cells.setdefault(key, []).append(row['test']['recall@20'])
    best = {
        data: max(
            (key for key in cells if key[1] == data), key=lambda key: float(np.mean(cells[key]))
        )
        for data in {data for _, data in cells}
    }
    lines = []
    for position, (*_, model, items) in enumerate(ROWS):
        line = []
        for data in DATA:
            key = position, data
            text = spread(cells[key]) if key in cells else ''
            line.append(f'**{text}**' if best.get(data) == key else text)
        if any(line) and (shown is None or (model, items) in shown):
            lines.append([model, items, *line])
    return markdown(['model', 'items', *DATA], lines)


def main() -> None:
    path = osp.join(ROOT, 'README.md')
    with open(path) as file:
        before, rest = file.read().split(START)
    folder = osp.join(ROOT, 'docs', 'reproduction')
    reports = {name: read(folder, name) for name in {name for name, *_ in ROWS}}
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.write(f'{before}{START}{table(reports, README)}{END}{rest.split(END)[1]}')


if __name__ == '__main__':
    from benchmarks import results  # The README and the pages must change together.

    results.main()
