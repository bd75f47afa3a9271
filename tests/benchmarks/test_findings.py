import json

import pytest

from benchmarks.findings import DOCS, cells, read_cells, render, seeds_of, table
from benchmarks.text import markdown


def run(label, recall, **slices):
    slices = {name: {'recall@20': value} for name, value in slices.items()}
    return {'label': label, 'test': {'recall@20': recall}, 'slices': slices}


REPORTS = {
    'first': [run(['a', 'LightGCN', 'id'], 0.1), run(['a', 'LightGCN', 'mean'], 0.2)],
    'second': [
        run(['a', 'LightGCN', 'id'], 0.3, tail=0.6),
        run(['a', 'LightGCN', 'id'], 0.4, tail=0.7),
    ],
}


def test_a_later_report_takes_the_place_of_an_earlier_one():
    claim = {'claim': 'c', 'label': ['a', '$row', '$column'], 'report': ['first', 'second']}
    claim |= {'rows': ['LightGCN'], 'columns': {'IDs': 'id', 'means': 'mean', 'none': 'linear'}}
    text, used, seeds = table(claim, REPORTS)
    line = ['LightGCN', '**0.3500 ± 0.0707**', '0.2000', '']
    assert text == markdown(['', 'IDs', 'means', 'none'], [line])
    assert used == ['second', 'first'] and seeds == {1, 2}


def test_a_column_has_its_own_report_and_group_of_items():
    claim = {'claim': 'c', 'label': ['a', '$row'], 'rows': {'x': ['LightGCN', 'id']}}
    claim['columns'] = {'all': {'report': 'first'}, 'tail': {'report': 'second', 'slice': 'tail'}}
    text, *_ = table(claim, REPORTS)
    assert '| x | 0.1000 | **0.6500 ± 0.0707** |' in text


def test_best_of_a_column():
    assert cells([[[0.1], []], [[0.2], [0.3]]], by_row=False) == [
        ['0.1000', ''],
        ['**0.2000**', '**0.3000**'],
    ]


def test_a_row_without_runs():
    claim = {'claim': 'Cats.', 'label': ['b', '$row'], 'rows': ['id'], 'columns': {'x': ''}}
    with pytest.raises(ValueError, match="row 'id' of 'Cats.' has no run"):
        table(claim | {'report': 'first'}, REPORTS)


def test_numbers_of_a_table(tmp_path):
    block = {'table': 't', 'columns': [{'name': 'share'}, {'name': 'note'}]}
    block['rows'] = [{'label': ['a', 'b'], 'cells': [{'mean': 0.25}, 'x']}]
    path = tmp_path / 'report.jsonl'
    path.write_text(json.dumps({'report': 'r'}) + '\n' + json.dumps(block) + '\n')
    (row,) = read_cells(str(path))
    assert row == {'label': ['a', 'b'], 'cells': {'share': 0.25}}
    claim = {'claim': 'c', 'label': ['a', '$row'], 'rows': ['b'], 'report': 'r'}
    claim['columns'] = {'x': {'slice': 'share'}}
    assert '| b | 0.2500 |' in table(claim, {'r': [row]})[0]


def test_seeds():
    assert [seeds_of(x) for x in ({1}, {3}, {3, 1})] == [
        'one seed',
        'three seeds',
        'one or three seeds',
    ]


def test_the_page_says_what_was_measured():
    with open(f'{DOCS}/findings.md') as file:
        assert file.read() == render()
