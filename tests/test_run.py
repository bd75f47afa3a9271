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

from motor_geo.engine.metrics import LIST_METRICS
from motor_geo.pipeline.config import merge, resolve
from motor_geo.pipeline.train import run
from motor_geo.run import main, table
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import HOST
from tests import forks

SMALL = [
    *('--data.num_users', '120', '--data.num_items', '80', '--data.num_interactions', '700'),
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '16', '--graph.k', '4'),
    *('--svd.channels', '8'),
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
            assert f'{name}@{k}' in result['test']
            assert (f'{name}@{k}' in result['val']) == (name not in LIST_METRICS)
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
    command = ['-m', 'motor_geo.run', *SMALL, *epochs, '--out', tmp_path / 'killed']
    process = forks.Fork(*command)
    lines = tmp_path / 'killed' / 'metrics.jsonl'
    while process.poll() is None:
        if lines.exists() and lines.read_text().count('\n') >= 3:
            process.kill()
            process.wait()
        time.sleep(0.002)
    assert process.poll() == -signal.SIGKILL
    assert not (tmp_path / 'killed' / 'result.json').exists()
    half = tmp_path / 'killed' / f'.tmp-{process.pid}-{HOST}-half.pt'
    half.write_bytes(b'what a kill may leave')
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


def test_learning_pays_on_the_clusters(tmp_path):
    r"""Popularity < ID embeddings < tokens, over three seeds."""
    recall = {'popularity': [], 'id': [], 'specific': []}
    for seed in range(3):
        for items in ('id', 'specific'):
            config = {
                'items': {'name': items},
                'seed': seed,
                'data': {'name': 'clusters', 'seed': seed},
                'trainer': {'epochs': 30, 'patience': 5, 'lr': 5e-3},
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
    assert '1,234 parameters, 1,000 of them in tables with one row per item' in lines[-1]


def test_a_configuration_is_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start('x', '--model', 'FREEDOM', '--print_config') == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config == resolve(config) and config['model']['name'] == 'FREEDOM'
    assert config['out'] == 'x' and config['graph']['k'] == 4
    assert main(['--config', 'recommended', '--print_config']) == 0
    assert yaml.safe_load(capsys.readouterr().out)['behavior'] is True
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    'flags, first',
    [
        (['--model.help', 'FREEDOM'], 'FREEDOM from the'),
        (['--model', 'FREEDOM', '--model.help'], 'FREEDOM from the'),
        (['--model.help'], 'Names for --model (default: LightGCN):'),
        (['--trainer.help'], 'Trains a backbone'),
        (['--items.help=features'], 'A linear map from raw item features'),
    ],
)
def test_help_of_a_class(capsys, flags, first):
    assert main(flags) == 0
    assert capsys.readouterr().out.startswith(first)


@pytest.mark.parametrize('module', ['run', 'recommend', 'sweep', 'reproduce'])
def test_interrupted_while_modules_are_imported(tmp_path, module):
    code = (
        'import builtins, sys\n'
        f'from motor_geo import {module} as command\n'
        'plain = builtins.__import__\n'
        'def interrupt(name, *args, **kwargs):\n'
        "    if name.split('.')[0] == 'torch': raise KeyboardInterrupt\n"
        '    return plain(name, *args, **kwargs)\n'
        'builtins.__import__ = interrupt\n'
        'sys.exit(command.main(sys.argv[1:]))'
    )
    (tmp_path / 'config.yaml').write_text('')
    arguments = {'run': [], 'recommend': [str(tmp_path)], 'reproduce': ['table2']}.get(module, [])
    process = [sys.executable, '-c', code, *arguments]
    root = osp.dirname(osp.dirname(__file__))
    done = subprocess.run(process, capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stderr) == (130, '')
    assert done.stdout.strip().startswith('interrupted') and done.stdout.count('\n') == 2


def test_huge_pages_are_asked_for_before_torch_is_imported():
    code = (
        'import os, sys\n'
        'from motor_geo.run import main\n'
        'class Finder:\n'
        '    def find_spec(self, name, *args):\n'
        "        if name == 'torch':\n"
        "            print(os.environ.get('THP_MEM_ALLOC_ENABLE'), flush=True)\n"
        '            os._exit(0)\n'
        'sys.meta_path.insert(0, Finder())\n'
        "main(['--print_config'])"
    )
    env = {key: value for key, value in os.environ.items() if key != 'THP_MEM_ALLOC_ENABLE'}
    env['PYTHONPATH'] = osp.dirname(osp.dirname(__file__))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    assert done.stdout.startswith('1\n')


OUTSIDE = """
import torch

from motor_geo.data import ItemKNN, SyntheticMultimodal
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import LightGCN
from motor_geo.typing import ITEM, Embeddings
from torch_geometric.transforms import BaseTransform


class Popular(BaseTransform):
    def forward(self, data):
        index = data['user', 'rates', 'item'].edge_index[1]
        data[ITEM].count = torch.bincount(index, minlength=data[ITEM].num_nodes)
        return data


class Mine(LightGCN):
    transforms = (ItemKNN(k=3, weighting='binary', cache=False), Popular())

    def __init__(self, data, item_encoder=None, boost: float = 0.1, **kwargs):
        super().__init__(data, item_encoder, **kwargs)
        self.boost = boost

    def forward(self, data):
        out = super().forward(data)
        neighbor, item = data['item', 'similar_text', 'item'].edge_index
        near = torch.zeros_like(out.item).index_add(0, item, out.item[neighbor])
        scale = 1 + self.boost * data[ITEM].count.log1p()
        return Embeddings(out.user, (out.item + near) * scale.view(-1, 1))


class Items(TokenCrossEncoder):
    pass


class Data(SyntheticMultimodal):
    def __init__(self, size: int = 40):
        super().__init__(num_users=size, num_items=30, num_interactions=5 * size)
"""


def test_classes_of_another_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'outside_of_it.py').write_text(OUTSIDE)
    flags = ['--model', 'outside_of_it.Mine', '--model.boost', '0.2', '--epochs', '2']
    flags += ['--items', 'outside_of_it.Items', '--items.mode', 'agnostic', '--device', 'cpu']
    flags += ['--data', 'outside_of_it.Data', '--trainer.progress', 'false', '--threads', '1']
    flags += ['--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '4']
    assert main(flags) == 0, capsys.readouterr().err
    out = tmp_path / 'runs' / 'Data-Mine-Items-seed0'
    result = read(out)
    assert result['model'] == 'outside_of_it.Mine' and result['items'] == 'outside_of_it.Items'
    assert result['num_item_parameters'] == 0
    assert main(flags) == 0 and 'is already finished' in capsys.readouterr().out
    assert main([*flags, '--model.bost', '1']) == 2
    assert "did you mean 'boost'" in capsys.readouterr().err

    (tmp_path / 'new').mkdir()
    for name, width in (('image', 128), ('text', 64)):
        np.save(tmp_path / 'new' / f'{name}_feat.npy', np.ones((3, width), np.float32))
    for more in ([], ['--new-items', 'new']):
        code = (
            'import sys; from motor_geo.recommend import main; '
            f'sys.exit(main({[str(out), "--k", "2", "--device", "cpu", *more]}))'
        )
        done = forks.run('-c', code, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert 'rows for 40 users' in done.stdout
        assert ('new_' in done.stdout) == bool(more)
        assert (out / 'recs.csv').is_file() and (out / 'recs-new.csv').is_file() == bool(more)
    assert 'new_' not in (out / 'recs.csv').read_text()


def found(hits, count, k):
    r"""A metric of another package."""
    return hits.sum(1) / count.clamp(min=1)


def test_a_metric_by_import_path(tmp_path, capsys):
    metrics = f'[recall, {__name__}.found]'
    flags = ['--epochs', '2', '--items', 'id', '--evaluator.metrics', metrics]
    assert start(tmp_path, *flags, '--trainer.metric', 'found@20') == 0
    assert 'test found' in capsys.readouterr().out
    for split in ('val', 'test'):
        result = read(tmp_path)[split]
        assert result['found@20'] == pytest.approx(result['recall@20'])
    with np.load(tmp_path / 'per_user.npz') as file:
        assert np.array_equal(file['found@20'], file['recall@20'])
    assert main(['--evaluator.help']) == 0
    assert 'a list of str or function' in ' '.join(capsys.readouterr().out.split())
    assert start(tmp_path / 'other', '--evaluator.metrics', f'[{__name__}.fuond]') == 2
    assert "did you mean 'found'" in capsys.readouterr().err
