import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import rows
from benchmarks.performance_page import render

TINY = {'tiny': (40, 30, 200, {'image': 16, 'text': 8})}
CUDA = pytest.param(
    'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
)


@pytest.mark.parametrize('device', ['cpu', CUDA])
def test_rows(device, monkeypatch):
    monkeypatch.setattr(gpu, 'STEPS', 2)
    found = list(rows(['BPR', 'FREEDOM'], device, TINY))
    assert [row['what'] for row in found] == [
        'propagation at tiny sizes, both hops',
        *(
            f'{name} at tiny sizes, {what} ({items})'
            for name in ('BPR', 'FREEDOM')
            for items in ('id', 'specific')
            for what in ('an epoch', 'evaluation')
        ),
    ]
    assert all(row['ours'] > 0 for row in found)
    assert 'GB/s; plain: a copy' in found[0]['note'] and found[0]['plain'] > 0
    says = 'not on a GPU' if device == 'cpu' else 'never waits'
    assert all(says in row['note'] for row in found if 'an epoch' in row['what'])

    about = {'cpu': 'A CPU', 'cores': 2, 'threads': 2, 'torch': '2', 'torch_geometric': '2'}
    about.update(faiss='1', python='3', gpu='A GPU')
    page = render([{**row, 'part': 'gpu', 'machine': about} for row in found])
    assert '## On a GPU' in page and 'Python 3, A GPU.' in page
    assert '| BPR at tiny sizes, an epoch (id) |' in page


def test_an_epoch_has_all_its_steps(monkeypatch):
    monkeypatch.setattr(
        gpu, 'interleave', lambda functions, *args, **kwargs: [3.0] * len(functions)
    )
    monkeypatch.setattr(gpu, 'STEPS', 2)
    data = gpu.generate((3000, 100, 9000, {'text': 8}), None)
    epoch, evaluation = gpu.backbone(data, gpu.held_out(3000, 100), 'BPR', 'id', 'these')
    assert epoch['ours'] == 7.5 and evaluation['ours'] == 3.0  # Five steps, two of them measured.
