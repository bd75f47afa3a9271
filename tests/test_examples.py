import os
import re
from pathlib import Path

import pytest
from torch_geometric import typing

from tests import forks

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / 'examples').glob('*.py'))


def run(name, tmp_path):
    env = os.environ | {'PYG_HOME': str(tmp_path)}
    path = ROOT / 'examples' / f'{name}.py'
    out = forks.run(path, '1', cwd=tmp_path, env=env)  # One epoch.
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_own_data(tmp_path):
    out = run('own_data', tmp_path)
    assert 'users=300, items=400' in out
    assert 0 < float(re.search(r'test recall@20: (\S+)', out).group(1)) < 1
    assert out.count('gets the arrival of category') == 2


def test_custom_gnn(tmp_path):
    rows = re.findall(r'^(\w+) +recall@20 (0\.\d+)', run('custom_gnn', tmp_path), re.M)
    assert [name for name, _ in rows] == ['Embedding', 'TokenCrossEncoder']


def measured(out):
    return float(re.search(r'test recall@20\W+(0\.\d+)', out).group(1))


def test_hetero_conv(tmp_path):
    out = run('hetero_conv', tmp_path)
    assert '(item, similar_text, item)' in out
    assert 0 < measured(out) < 1


@pytest.mark.skipif(
    not (typing.WITH_PYG_LIB or typing.WITH_TORCH_SPARSE),
    reason='PyG samples neighbors with pyg-lib or torch-sparse',
)
def test_link_neighbor_loader(tmp_path):
    out = run('link_neighbor_loader', tmp_path)
    users, items = map(int, re.search(r'a batch: (\d+) users, (\d+) items', out).groups())
    assert 256 < users < 2000 and 0 < items < 1500  # A part of the graph.
    assert 0 < measured(out) < 1


def test_lightning_trainer(tmp_path):
    pytest.importorskip('lightning', reason='PyTorch Lightning is not installed')
    # One step of validation, under inference mode, comes before training.
    assert 0 < measured(run('lightning_trainer', tmp_path)) < 1


def test_cold_items(tmp_path):
    out = run('cold_items', tmp_path)
    recall = {k: float(v) for k, v in re.findall(r'^(\S.*?) +(0\.\d{4}) \(', out, re.M)}
    items = int(re.search(r'among (\d+) unseen items', out).group(1))
    assert len(recall) == 6
    assert recall['random'] == pytest.approx(20 / items, abs=0.03)


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < 80
    assert f'def test_{path.stem}(' in Path(__file__).read_text()
