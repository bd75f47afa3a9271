from __future__ import annotations

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.transforms import BaseTransform

from motor_geo.data import ItemKNN, OPQTokenizer, SyntheticClusters
from motor_geo.data.datasets.pre_transform import apply_once


class Scale(BaseTransform):
    calls = 0

    def __init__(self, by, bias=None):
        self.by, self.bias = by, bias

    def forward(self, data):
        type(self).calls += 1
        data['item'].x_text = data['item'].x_text * self.by
        return data


@pytest.fixture
def data():
    Scale.calls = 0
    return SyntheticClusters(num_users=50, num_items=60, num_interactions=300)[0]


def test_once_for_each_content(data, tmp_path):
    def apply(transform, key='a'):
        return apply_once(data, transform, str(tmp_path), key)['item'].x_text

    x = data['item'].x_text
    for _ in range(2):
        assert torch.equal(apply(Scale(2.0)), 2 * x)
        assert torch.equal(apply(T.Compose([Scale(2.0)])), 2 * x)
        assert Scale.calls == 2
    Scale.calls = 0
    for k, transform in enumerate((Scale(3.0), Scale(3), Scale(3.0, torch.ones(2))), start=1):
        assert torch.equal(apply(transform), 3 * x) and Scale.calls == k
    apply(Scale(3.0, torch.zeros(2)))
    apply(Scale(3.0), 'other data')
    assert Scale.calls == 5
    apply(Scale(3.0, torch.zeros(2)))
    assert Scale.calls == 5
    for file in tmp_path.iterdir():
        file.write_bytes(b'damaged')
    assert torch.equal(apply(Scale(2.0)), 2 * x) and Scale.calls == 6
    assert torch.equal(data['item'].x_text, x)


def test_what_cannot_be_told_apart_is_applied_again(data, tmp_path):
    for factor in (2, 3):
        out = apply_once(data, lambda data, by=factor: Scale(by)(data), str(tmp_path), 'a')
        assert torch.equal(out['item'].x_text, factor * data['item'].x_text)
        out = apply_once(data, Scale(1.0, print), str(tmp_path), 'a')
    assert not list(tmp_path.iterdir())


def test_fitted_transforms_are_fitted(data, tmp_path):
    for _ in range(2):
        tokenizer = OPQTokenizer(2, codebook_size=8, verbose=False, cache=False)
        transform = T.Compose([tokenizer, ItemKNN(k=3)])
        out = apply_once(data, transform, str(tmp_path), 'a')
        assert out['item'].token_id.shape == (60, 4)
        assert len(tokenizer.quantizers) == 2
    edges = [key for key in out.edge_types if key[1].startswith('similar')]
    assert edges
    loaded = [apply_once(data, ItemKNN(k=3), str(tmp_path), 'a') for _ in range(2)]
    for key in edges:
        assert torch.equal(loaded[0][key].edge_index, loaded[1][key].edge_index)
