import json
import os.path as osp

import pytest

from benchmarks.performance_page import line, render

ROOT = osp.join(osp.dirname(__file__), '..', '..')
MACHINE = {
    'cpu': 'A CPU',
    'cores': 2,
    'threads': 2,
    'torch': '2',
    'torch_geometric': '2',
    'faiss': '1',
    'python': '3',
}


def make(part, what, ours, plain=None, **more):
    row = {'part': part, 'what': what, 'ours': ours, 'plain': plain, 'unit': 's'}
    return {**row, 'machine': MACHINE, **more}


def test_page():
    rows = [
        make('tokens', 'token network', 0.25, 5.0),
        make('baby', 'BPR at Baby sizes, an epoch (id)', 0.1, 0.5, peak_mb=812),
        make('baby', 'LightGCN at Baby sizes, an epoch (id)', 1.6, 2.0),
        make('baby', 'LATTICE at Baby sizes, an epoch (id)', 3.0),
        make('baby', 'BM3 at Baby sizes, an epoch (id, trained features)', 3.0, 6.0),
        make('growth', 'growth: BPR', 0.5, interactions=100_000),
        make('growth', 'growth: BPR', 6.0, interactions=1_000_000),
        make('growth', 'growth: BPR, batches of auto', 2.0, interactions=1_000_000),
        make('growth', 'growth: BPR, batches of auto', 30.0, interactions=10_000_000),
        make('growth', 'growth: sums of random rows alone', 1.0, interactions=1_000_000),
        make('growth', 'growth: sums of random rows alone', 25.0, interactions=10_000_000),
        make('quantizer', 'text', 1.25, setting={'num_iters': 10}, error=0.1234),
    ]
    page = render(rows)
    assert '| token network | 0.25 s | 5 s | 0.05 |  |' in page
    assert '| 0.1 s | 0.5 s | 0.20 | peak 812 MB |' in page
    assert 'Geometric mean of the ratios with IDs: 0.40.' in page  # Of 0.2 and 0.8.
    assert 'Geometric mean of the ratios with IDs and trained features: 0.50.' in page
    assert '| BPR | 0.5 (5) | 6 (6) |  |' in page
    # 3 seconds per million instead of 2, and 2.5 instead of 1.
    assert 'factors of 1.5 (BPR), and that of the memory alone by 2.5.' in page
    assert '| text | num_iters 10 | 1.25 | 0.1234 |' in page
    assert 'A CPU with 2 cores, 2 thread(s), torch 2' in page
    assert 'ratio 0.05' in line(rows[0])


def test_committed_page_is_made_from_the_rows():
    path = osp.join(ROOT, 'docs', 'performance.jsonl')
    if not osp.exists(path):
        pytest.skip('nothing was measured')
    with open(path) as file:
        rows = [json.loads(text) for text in file]
    with open(osp.join(ROOT, 'docs', 'performance.md')) as file:
        assert file.read() == render(rows)
