import json
import os
import os.path as osp
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml

from motor_geo.pipeline.config import merge, resolve
from motor_geo.pipeline.train import run
from motor_geo.run import main, table
from motor_geo.utils.errors import ConfigError

SMALL = [
    *('--data.num_users', '120', '--data.num_items', '80', '--data.num_interactions', '700'),
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '16', '--graph.k', '4'),
    *('--model.channels', '16', '--batch_size', '128', '--threads', '1'),
]


def start(out, *flags):
    return main([*SMALL, '--out', str(out), *flags])


def read(out):
    with open(out / 'result.json') as file:
        return json.load(file)


@pytest.mark.parametrize('items', ['id', 'specific', 'features'])
def test_run_writes_what_it_promises(tmp_path, capsys, items):
    assert start(tmp_path, '--model', 'FREEDOM', '--items', items, '--epochs', '3') == 0
    text = capsys.readouterr().out
    assert 'test recall' in text and 'popularity recall' in text and '80' in text

    result = read(tmp_path)
    assert result['data'] == 'synthetic' and result['model'] == 'FREEDOM'
    assert result['items'] == items and result['seed'] == 0 and result['epochs'] == 3
    assert 1 <= result['best_epoch'] <= 3 and result['seconds'] > 0
    for name in ('recall', 'ndcg', 'precision', 'map', 'hit', 'mrr', 'coverage', 'popularity'):
        for k in (5, 10, 20, 50):
            assert f'{name}@{k}' in result['test'] and f'{name}@{k}' in result['val']
    assert (result['num_item_parameters'] == 80 * 16) == (items == 'id')
    assert (result['num_item_parameters'] == 0) == (items != 'id')
    assert set(result['slices']) == {'cold', 'tail', 'middle', 'head'}

    with open(tmp_path / 'config.yaml') as file:
        config = yaml.safe_load(file)
    assert config['model']['name'] == 'FREEDOM' and config['trainer']['epochs'] == 3
    assert resolve(config) == resolve(resolve(config))
    with open(tmp_path / 'metrics.jsonl') as file:
        assert [json.loads(line)['epoch'] for line in file] == [1, 2, 3]
    with np.load(tmp_path / 'per_user.npz') as file:
        assert file['recall@20'].mean() == pytest.approx(result['test']['recall@20'])
        assert file['user'].shape == file['recall@20'].shape
    assert (tmp_path / 'best.pt').exists() and (tmp_path / 'last.pt').exists()
    assert (tmp_path / 'tokenizer.pt').exists() == (items == 'specific')


def test_a_finished_run_is_read_back(tmp_path):
    assert start(tmp_path, '--epochs', '2') == 0
    stamp, result = os.stat(tmp_path / 'last.pt').st_mtime_ns, read(tmp_path)
    assert start(tmp_path, '--epochs', '2') == 0
    assert os.stat(tmp_path / 'last.pt').st_mtime_ns == stamp and read(tmp_path) == result
    assert start(tmp_path, '--epochs', '3') == 0  # More epochs go on.
    assert read(tmp_path)['epochs'] == 3


def test_a_folder_holds_one_run(tmp_path, capsys):
    assert start(tmp_path, '--epochs', '1') == 0
    before = read(tmp_path)
    assert start(tmp_path, '--epochs', '1', '--model.num_layers', '3') == 2
    assert 'model.num_layers is 2 there, 3 here' in capsys.readouterr().err
    assert read(tmp_path) == before


def test_masking_validation_changes_the_test_only(tmp_path):
    assert start(tmp_path / 'a', '--epochs', '2') == 0
    assert start(tmp_path / 'b', '--epochs', '2', '--mask_validation') == 0
    a, b = read(tmp_path / 'a'), read(tmp_path / 'b')
    assert a['val'] == b['val']
    assert b['test']['recall@20'] >= a['test']['recall@20']
    assert a['test'] != b['test']


def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    assert start(tmp_path, '--epochs', '1', '--tensorboard') == 0
    assert any(name.startswith('events.out') for name in os.listdir(tmp_path))


def test_killed_at_any_moment(tmp_path):
    r"""A run that is killed goes on and ends with the same bits."""
    epochs = ['--epochs', '30', '--trainer.patience', '30']
    assert start(tmp_path / 'whole', *epochs) == 0
    command = [sys.executable, '-m', 'motor_geo.run', *SMALL, *epochs]
    command += ['--out', str(tmp_path / 'killed')]
    root = osp.dirname(osp.dirname(__file__))
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
    lines = tmp_path / 'killed' / 'metrics.jsonl'
    while process.poll() is None:
        if lines.exists() and lines.read_text().count('\n') >= 3:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / 'killed' / 'result.json').exists()
    (tmp_path / 'killed' / '.tmp-half.pt').write_bytes(b'what a kill may leave')
    assert start(tmp_path / 'killed', *epochs) == 0

    whole, killed = read(tmp_path / 'whole'), read(tmp_path / 'killed')
    for key in ('val', 'test', 'slices', 'best_epoch', 'epochs', 'hashes'):
        assert whole[key] == killed[key], key
    for name in ('best.pt', 'last.pt'):
        a, b = (
            torch.load(tmp_path / folder / name, weights_only=True)['state']['model']
            for folder in ('whole', 'killed')
        )
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert not [name for name in os.listdir(tmp_path / 'killed') if name.startswith('.tmp')]


def test_learning_pays_on_the_synthetic_data(tmp_path):
    r"""Popularity < ID embeddings < tokens, over three seeds."""
    recall = {'popularity': [], 'id': [], 'specific': []}
    for seed in range(3):
        for items in ('id', 'specific'):
            config = {
                'items': {'name': items},
                'seed': seed,
                'data': {'seed': seed},
                'trainer': {'epochs': 60, 'patience': 5, 'lr': 5e-3},
                'out': str(tmp_path / f'{items}{seed}'),
            }
            result = run(resolve(config), progress=False)
            recall[items].append(result['test']['recall@20'])
        recall['popularity'].append(result['popularity']['recall@20'])
    popularity, ids, tokens = (sum(recall[key]) / 3 for key in ('popularity', 'id', 'specific'))
    assert 1.2 * popularity < ids and 1.2 * ids < tokens, recall


def test_merge_drops_options_of_another_class():
    merged = merge({'model': {'name': 'FREEDOM', 'rho': 0.9}}, {'model': {'name': 'LightGCN'}})
    assert merged == {'model': {'name': 'LightGCN'}}
    merged = merge({'model': {'name': 'FREEDOM', 'rho': 0.9}}, {'model': {'num_layers': 3}})
    assert merged == {'model': {'name': 'FREEDOM', 'rho': 0.9, 'num_layers': 3}}
    with pytest.raises(ConfigError, match="did you mean 'FREEDOM'"):
        resolve({'model': {'name': 'FREEDON'}})


def test_table_has_a_row_per_metric():
    values = {f'recall@{k}': 0.5 for k in (10, 20)}
    result = {
        **{'test': values, 'val': values, 'popularity': values, 'model': 'BPR', 'items': 'id'},
        **{'data': 'toy', 'seed': 1, 'epochs': 3, 'best_epoch': 2, 'seconds': 1.0},
        **{'seconds_per_epoch': 0.33, 'num_parameters': 1234, 'num_item_parameters': 1000},
    }
    lines = table(result).splitlines()
    assert lines[0].split() == ['@10', '@20']
    assert lines[1].split() == ['test', 'recall', '0.5000', '0.5000']
    assert '1,234 parameters, 1,000 of them in tables with a row per item' in lines[-1]
