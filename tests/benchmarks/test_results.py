import json
import os

import numpy as np
import pytest

from benchmarks import results
from benchmarks.results import Entry, Study, grid, identity, load, main

KEY = 'lastfm', 'BPR', 'id'
BEST = {'model.reg_weight': 0.1}


def finished(entry, val):
    metrics = {'recall@20': val, 'ndcg@20': 0.1}
    return {
        **{'seed': entry.seed, 'val': metrics, 'test': metrics, 'popularity': metrics},
        **{'slices': {'head': metrics, 'cold': {'users': 0}}, 'epochs': 3, 'best_epoch': 2},
        **{'seconds_per_epoch': 1.0, 'num_parameters': 10, 'machine': {'device': 'cpu'}},
    }


@pytest.fixture
def call(tmp_path, monkeypatch):
    r"""Calls the benchmark; returns what it executes and the rows of the file."""
    value = {'best': 0.5}

    def execute(study, entries, jobs):
        for entry in entries:
            if study.is_finished(entry):
                continue
            executed.append((entry.stage, entry.setting, entry.seed))
            os.makedirs(study.folder(entry))
            with open(os.path.join(study.folder(entry), 'result.json'), 'w') as file:
                val = value['best'] if entry.setting == BEST else 0.3
                json.dump(finished(entry, val + entry.seed / 10), file)

    executed = []
    monkeypatch.setattr(results, 'execute', execute)

    def run(*arguments, runs='runs', best=0.5):
        executed.clear()
        value['best'] = best
        out = ['--data', str(tmp_path), '--out', str(tmp_path / 'out.json')]
        flags = ['--datasets', 'lastfm', '--models', 'BPR', '--stages', 'tune', 'final']
        assert main([*out, '--runs', str(tmp_path / runs), *flags, *arguments]) == 0
        rows = load(str(tmp_path / 'out.json'))
        mine = [row for row in rows.values() if row['items'] == 'id']
        return list(executed), {(r['stage'], json.dumps(r['setting']), r['seed']): r for r in mine}

    return run


def test_identity():
    entry = Entry('tune', *KEY, '', {'a.b': 1, 'a.c': 0.5}, 0)._asdict()
    same = {**entry, 'setting': {'a.c': 0.5, 'a.b': 1}, 'val': 0.3}
    assert identity(entry) == identity(same) == identity(json.loads(json.dumps(same)))
    for name, value in [('stage', 'final'), ('part', 'tanh'), ('setting', {}), ('seed', 1)]:
        assert identity({**entry, name: value}) != identity(entry)
    time = {'stage': 'time', 'data': 'lastfm', 'model': 'BPR', 'items': 'id'}
    assert identity({**entry, 'stage': 'time'}) == identity(time)
    known = {'stage': 'baseline', 'data': 'toy', 'model': 'ItemKNN', 'setting': {'k': 5}}
    assert identity(known) == identity({**known, 'setting': {'k': 10}})


def test_folders():
    study = Study('data', 'runs', 'cpu', 1, 10)
    setting = {'tokenizer.num_tokens': 4, 'model.num_layers': 3}
    entry = Entry('final', 'lastfm', 'LightGCN', 'specific', '', setting, 1)
    folder = 'runs/lastfm/LightGCN/specific/num_layers=3,num_tokens=4/seed1'
    assert study.folder(entry) == study.folder(entry._replace(stage='tune')) == folder
    part = entry._replace(stage='parts', part='two layers')
    assert study.folder(part._replace(part='as chosen')) == folder
    assert study.folder(part) == folder.replace('num_layers=3,', 'num_layers=2,num_layers=3,')
    cold = Entry('cold', 'sports', 'LightGCN', 'id', '', {}, 0)
    assert study.folder(cold) == 'runs/sports-cold_item/LightGCN/id/default/seed0'


def test_config(tmp_path):
    (tmp_path / 'toy').mkdir()
    (tmp_path / 'toy' / 'toy.inter').write_text('userID\titemID\n')
    study = Study(str(tmp_path), 'runs', 'cpu', 1, 10)
    setting = {'model.num_layers': 3, 'tokenizer.num_tokens': 8}
    entry = Entry('parts', 'toy', 'LightGCN', 'specific', 'features raw', setting, 1)
    config = study.config(entry)
    assert config['model']['num_layers'] == 3 and config['seed'] == 1
    assert config['data']['split'] == 'column' and config['out'] == study.folder(entry)
    tokenizer = config['tokenizer']
    assert [tokenizer[name] for name in ('num_tokens', 'seed', 'center')] == [8, 1, False]
    assert study.config(entry._replace(part=''))['tokenizer']['center']
    assert study.config(entry._replace(stage='cold'))['data']['split'] == 'cold_item'


def test_rows_add_up(call):
    names = [('tune', json.dumps(setting), 0) for setting in grid(*KEY)]
    finals = [('final', json.dumps(BEST), seed) for seed in (0, 1)]

    executed, rows = call('--stages', 'tune')
    assert [entry for entry in executed if entry[0] != 'tune'] == []
    assert len(executed) == 3 * 4  # As many settings for every item encoder.
    # The chosen run of seed 0 is already there.
    assert list(rows) == [finals[0], *names]
    assert rows[finals[0]] == {**rows['tune', json.dumps(BEST), 0], 'stage': 'final'}

    # The runs are gone, and nothing is repeated.
    executed, rows = call(runs='other')
    assert ('final', BEST, 1) in executed and ('final', BEST, 0) not in executed
    assert [entry for entry in executed if entry[0] == 'tune'] == []
    assert sorted(rows) == sorted([*finals, *names])
    assert rows[finals[1]]['val'] == 0.6
    assert call(runs='third') == ([], rows)
    assert call('--models', 'VBPR', '--stages', 'parts', runs='third') == ([], rows)

    # Unless this is asked for; new rows then replace old ones.
    executed, rows = call('--again', runs='third', best=0.4)
    assert ('tune', BEST, 0) in executed and ('final', BEST, 1) in executed
    assert ('final', BEST, 0) not in executed  # It is the run of the line above.
    assert sorted(rows) == sorted([*finals, *names])
    assert [rows[name]['val'] for name in finals] == [0.4, 0.5]


def test_another_choice(call):
    call()
    executed, rows = call('--again', runs='other', best=0.1)  # Now the first setting is best.
    first = grid(*KEY)[0]
    assert ('final', first, 1) in executed
    assert rows['final', json.dumps(BEST), 1]['val'] == 0.6  # Kept, but not on the page.
    assert rows['final', json.dumps(first), 0]['val'] == 0.3


def test_baselines(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder, out = tmp_path / 'toy', tmp_path / 'out.json'
    folder.mkdir()
    pairs = [(user, item, item % 3) for user in range(8) for item in rng.permutation(40)[:12]]
    table = '\n'.join('\t'.join(map(str, row)) for row in pairs)
    (folder / 'toy.inter').write_text(f'userID\titemID\tx_label\n{table}\n')
    flags = ['--data', str(tmp_path), '--out', str(out), '--runs', str(tmp_path / 'runs')]
    flags += ['--datasets', 'toy', '--stages', 'baselines']
    assert main(flags) == 0
    (first,) = json.loads(out.read_text())
    assert (first['stage'], first['data'], first['model']) == ('baseline', 'toy', 'Popularity')

    np.save(folder / 'text_feat.npy', rng.standard_normal((40, 4)).astype(np.float32))
    assert main(flags) == 0 and json.loads(out.read_text()) == [first]
    assert main([*flags, '--again']) == 0
    rows = json.loads(out.read_text())
    assert rows[0] == first and rows[1]['model'] == 'ItemKNN'
    assert set(rows[1]) == {*first} and set(rows[1]['setting']) == {'k'}
    assert '| ItemKNN |' in (tmp_path / 'out.md').read_text()
