r"""Numbers of the pages come from the reports."""

import os.path as osp
import re
from glob import glob

import numpy as np
import pytest

from motor_geo.report.write import read_rows

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
PAGES = [
    *('README.md', 'docs/findings.md', 'docs/tokens.rst', 'docs/reproduction/README.md'),
    *('docs/claims.rst', 'docs/when_tokens.md'),
]
#: Metrics have four decimals on all pages.
METRIC = re.compile(r'(?<![\d.])0?(\.\d{4})(?!\d)')
#: Examples of output, which other tests compare with what the commands print.
CODE = re.compile(r'^```.*?^```|^    .*?$', re.MULTILINE | re.DOTALL)


def metrics_of(path):
    r"""Yields the Recall@20 and NDCG@20 of a report: means over seeds with their
    deviations, and settings on validation. Of a report without runs, yields its tables.
    """
    rows = list(read_rows(path))
    runs = [row for row in rows if 'run' in row]
    values = {}
    for run in runs:
        yield from (value for _, value in run.get('tried', ()))
        for name, part in {'': run['test'], **run['slices']}.items():
            for metric in ('recall@20', 'ndcg@20'):
                if metric in part:
                    values.setdefault((*run['label'], name, metric), []).append(part[metric])
    for found in values.values():
        yield np.mean(found)
        if len(found) > 1:
            yield np.std(found, ddof=1)
    for table in rows:
        for row in table.get('rows', ()):
            for column, cell in zip(table['columns'], row['cells']):
                if isinstance(cell, dict) and (not runs or column['name'].startswith('epoch ')):
                    yield cell['mean']


@pytest.fixture(scope='module')
def known():
    paths = sorted(glob(osp.join(ROOT, 'docs', 'reproduction', '*.jsonl')))
    return {f'{value:.4f}'.lstrip('0') for path in paths for value in metrics_of(path)}


def unknown(text, known):
    return [number for number in METRIC.findall(CODE.sub('', text)) if number not in known]


@pytest.mark.parametrize('page', PAGES)
def test_metrics_come_from_reports(page, known):
    with open(osp.join(ROOT, page)) as file:
        assert unknown(file.read(), known) == []


def test_another_number_is_found(known):
    assert unknown('IDs have .0892, not 0.9892 and 1.0892.', known) == ['.9892']
    assert len(known) < 4000  # Of ten thousand, else anything would be known.
