import json
import os.path as osp

from benchmarks.readme import END, ROOT, START, read, table


def row(data, items, recall):
    return {'label': [data, 'LightGCN', items], 'test': {'recall@20': recall}}


def test_table():
    rows = [row('b', 'id', 0.1), row('a', 'id', 0.4), row('b', 'recommended', 0.3)]
    rows += [row('b', 'recommended', 0.2), row('a', 'mean + behavior', 0.2)]
    head, _, *lines = table(rows).splitlines()
    assert head.startswith('| data | seeds | `id` |') and head.endswith('| recommended |')
    assert lines == [
        '| b | 2 | 0.1000 |  |  |  |  | **0.2500 ± 0.0707** |',
        '| a | 1 | **0.4000** |  |  |  | 0.2000 |  |',
    ]


def test_reports_of_all_data_sets_are_read(tmp_path):
    for name in ('recommended', 'recommended-b', 'table2'):
        (tmp_path / f'{name}.jsonl').write_text(
            json.dumps({'run': name, **row(name, 'id', 0.5)}) + '\n'
        )
    found = [entry['label'][0] for entry in read(str(tmp_path))]
    assert found == ['recommended', 'recommended-b']


def test_the_readme_says_what_was_measured():
    with open(osp.join(ROOT, 'README.md')) as file:
        block = file.read().split(START)[1].split(END)[0]
    assert table(read(osp.join(ROOT, 'docs', 'reproduction'))) == block
