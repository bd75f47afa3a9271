import json
import os.path as osp

import pytest

from benchmarks.results_page import REFERENCE, chosen, render, spread
from motor_geo.nn.models import MODELS

ROOT = osp.join(osp.dirname(__file__), '..', '..')


def row(stage='final', items='id', seed=0, recall=0.25, **kwargs):
    return {
        **{'stage': stage, 'data': 'toy', 'model': 'LightGCN', 'items': items, 'part': ''},
        **{'setting': {'model.num_layers': 2}, 'seed': seed, 'val': 0.3, 'recall@20': recall},
        **{'ndcg@20': 0.1, 'popularity': 0.05, 'slices': {'tail': 0.01, 'head': 0.4}},
        **{'epochs': 30, 'best_epoch': 9, 'seconds_per_epoch': 1.0, 'num_parameters': 1234},
        **kwargs,
    }


def baseline(model, recall, setting=None, data='toy'):
    return {
        **{'stage': 'baseline', 'data': data, 'model': model, 'setting': setting or {}},
        **{'val': 0.04, 'recall@20': recall, 'ndcg@20': 0.02},
    }


def lines(page):
    return [line for line in page.split('\n') if line.startswith('| ')]


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
    assert 'medians of three epochs after a first one, on 2 CPU threads' in page


def test_baselines_come_first_and_models_in_order():
    rows = [row(model=model) for model in reversed(MODELS)]
    rows += [baseline('Popularity', 0.02), baseline('ItemKNN', 0.03, {'k': 10})]
    found = lines(render(rows))[1:17]
    assert found[0] == '| Popularity |  |  | 0.0200 | 0.0200 | 0.0400 |  |  |  |  |'
    assert found[1] == '| ItemKNN |  |  | 0.0300 | 0.0200 | 0.0400 |  |  |  | k 10 |'
    assert [line.split(' | ')[0][2:] for line in found[2:]] == list(MODELS)
    assert '## baby' in render([baseline('Popularity', 0.02, data='baby')])  # Nothing else yet.


def test_models_below_the_better_baseline():
    rows = [baseline('Popularity', 0.2), baseline('ItemKNN', 0.1)]
    rows += [row(model='VBPR', recall=0.19), row(model='BPR', recall=0.21)]
    rows += [row(model='BPR', items='mean', recall=0.05)]
    rows += [row(model='VBPR', items='mean', recall=0.1)]
    rows += [row(seed=seed, recall=recall) for seed, recall in enumerate((0.1, 0.29))]
    expected = (
        'Below Popularity in Recall@20: BPR with `mean`; LightGCN with `id`; '
        'VBPR with `id`, `mean`.\n'
    )
    assert expected in render(rows)
    assert 'Below ItemKNN' in render([*rows, baseline('ItemKNN', 0.3)])
    assert 'Below' not in render([baseline('Popularity', 0.01), *rows[2:]])
    assert 'Below' not in render(rows[2:])


def test_settings():
    three = {'model.num_layers': 3}
    tune = [row('tune', val=0.2), row('tune', setting=three, val=0.25), row('tune', 'mean')]
    final = [row(recall=0.1), row(setting=three, recall=0.6), row(items='mean', setting={})]
    assert chosen(tune)['toy', 'LightGCN', 'id'] == three
    # What was trained in a setting that has been overtaken is not averaged in.
    page = render([*tune, *final[:2]])
    assert '| LightGCN | id | 1 | 0.6000 |' in page and 'num_layers 3 (of 2) |' in page
    assert '| 1,234 | default |' in render(final)


def test_elsewhere():
    rows = [row(data='tiktok', model=model) for model in ('MGCN', 'LightGCN')]
    rows += [row(data='tiktok', model='MGCN', items='specific')]
    found = lines(render(rows))
    assert found[0].endswith('| setting chosen | elsewhere |')
    assert found[1].endswith(f'| {REFERENCE["tiktok", "LightGCN"]} |')
    assert found[2].endswith('| framework .1074 / .0453 |') and found[3].endswith('|  |')


def test_pages_are_what_the_results_say():
    path = osp.join(ROOT, 'docs', 'results.json')
    if not osp.exists(path):
        pytest.skip('no results are collected')
    with open(path) as file:
        rows = json.load(file)
    with open(osp.join(ROOT, 'docs', 'results.md')) as file:
        assert file.read() == render(rows)
