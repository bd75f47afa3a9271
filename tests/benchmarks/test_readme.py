import json
import os.path as osp

from benchmarks.readme import END, README, ROOT, ROWS, START, read, table


def row(label, recall):
    return {'label': label, 'test': {'recall@20': recall}}


def test_table():
    reports = {
        'recipe': [
            row(['tiktok', 'recommended'], 0.3),
            row(['tiktok', 'recommended'], 0.2),
            row(['lastfm', 'EASE'], 0.4),
        ],
        'recommended': [row(['tiktok', 'LightGCN', 'id'], 0.1)],
    }
    head, _, *lines = table(reports).splitlines()
    assert head == '| model | items | lastfm | tiktok | baby | sports | ml1m |'
    assert lines == [
        '| `EASE` | `id` | **0.4000** |  |  |  |  |',
        '| `LightGCN` | `id` |  | 0.1000 |  |  |  |',
        '| `TokenALS` | `recommended` |  | **0.2500 ± 0.0707** |  |  |  |',
    ]
    short = table(reports, (('`LightGCN`', '`id`'), ('`TokenALS`', '`recommended`')))
    assert short.splitlines()[2:] == lines[1:]


def test_rows_of_the_readme_exist():
    assert set(README) < {(model, items) for *_, model, items in ROWS}


def test_reports_of_all_data_sets_are_read(tmp_path):
    for name in ('recommended', 'recommended-baby', 'recommended-thin-baby', 'table2'):
        (tmp_path / f'{name}.jsonl').write_text(
            json.dumps({'run': name, **row([name, 'LightGCN', 'id'], 0.5)}) + '\n'
        )
    found = [entry['label'][0] for entry in read(str(tmp_path), 'recommended')]
    assert found == ['recommended', 'recommended-baby']


def test_the_readme_says_what_was_measured():
    with open(osp.join(ROOT, 'README.md')) as file:
        block = file.read().split(START)[1].split(END)[0]
    folder = osp.join(ROOT, 'docs', 'reproduction')
    reports = {name: read(folder, name) for name in {name for name, *_ in ROWS}}
    assert table(reports, README) == block
