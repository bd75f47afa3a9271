import json
import os.path as osp

import pytest

from benchmarks.results_page import render, short_table, spread

ROOT = osp.join(osp.dirname(__file__), '..', '..')


def row(stage='final', items='id', seed=0, recall=0.25, **kwargs):
    return {
        **{'stage': stage, 'data': 'toy', 'model': 'LightGCN', 'items': items, 'part': ''},
        **{'setting': {'model.num_layers': 2}, 'seed': seed, 'val': 0.3, 'recall@20': recall},
        **{'ndcg@20': 0.1, 'popularity': 0.05, 'slices': {'tail': 0.01, 'head': 0.4}},
        **{'epochs': 30, 'best_epoch': 9, 'seconds_per_epoch': 1.0, 'num_parameters': 1234},
        **kwargs,
    }


def test_spread_by_hand():
    assert spread([0.25]) == '0.2500'
    assert spread([0.1, 0.3]) == '0.2000 ± 0.1414'


def test_render():
    rows = [row(seed=seed, recall=recall) for seed, recall in enumerate((0.1, 0.3))]
    rows += [row(items='mean', recall=0.5)]
    rows += [row('cold', 'mean', recall=0.2, candidates=200)]
    rows += [row('time', 'id', seconds_per_epoch=0.75, threads=2)]
    page = render(rows)
    assert '| LightGCN | id | 2 | 0.2000 ± 0.1414 | 0.1000 ± 0.0000 |' in page
    assert '| 9 | 0.75 | 1,234 | num_layers 2 |' in page
    assert '| toy | mean | 0.2000 | 0.1000 | 0.1000 | 2.0 x |' in page
    assert 'Popularity: Recall@20 0.0500.' in page
    assert '| toy | LightGCN | 2 | 0.0500 | 0.2000 ± 0.1414 |  |  | 0.5000 |' in short_table(rows)


def test_pages_are_what_the_results_say():
    path = osp.join(ROOT, 'docs', 'results.json')
    if not osp.exists(path):
        pytest.skip('no results are collected')
    with open(path) as file:
        rows = json.load(file)
    with open(osp.join(ROOT, 'docs', 'results.md')) as file:
        assert file.read() == render(rows)
    with open(osp.join(ROOT, 'README.md')) as file:
        readme = file.read()
    block = readme.split('<!-- results:start -->')[1].split('<!-- results:end -->')[0]
    assert short_table(rows).strip() in block
