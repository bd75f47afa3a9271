import pytest
import torch
from torch_geometric.data import HeteroData

import motor_geo.nn.functional.known_features as known_features_module
from motor_geo.nn import FeatureProjection
from motor_geo.nn.functional.known_features import finite_features, known_features
from motor_geo.nn.models import MODELS, ContentKNN

NAN = float('nan')


def make_data(rows, mask=None):
    data = HeteroData()
    data['product'].x = torch.tensor(rows)
    data['customer'].num_nodes = 1
    data['customer', 'buys', 'product'].edge_index = torch.tensor([[0], [0]])
    if mask is not None:
        data['product'].mask_x = torch.tensor(mask)
    return data


def test_rows_of_items_without_the_modality():
    data = make_data([[1.0, 2.0], [3.0, NAN], [3.0, 6.0], [7.0, 8.0]], [True, False, True, False])
    expected = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [7.0, 8.0]])
    out = known_features(data, 'x', 'product')
    assert torch.equal(out, expected)
    assert known_features(data, 'x', 'product') is out  # Cached.
    assert data['product'].x[1].isnan().any()  # The graph stays as it was.
    data['product'].mask_x = data['product'].mask_x.numpy()
    assert torch.equal(known_features(data, 'x', 'product'), expected)
    with torch.device('meta'):  # The graph is not there, whatever the default device.
        assert torch.equal(known_features(data, 'x', 'product'), expected)
    lin = FeatureProjection({'x': 2}, 3, normalize=False)
    torch.testing.assert_close(lin.encode(data['product']), lin({'x': expected}))


def test_other_rows_stay():
    data = make_data([[1.0], [NAN]])
    assert known_features(data, 'x', 'product') is data['product'].x
    data = make_data([[1.0], [2.0]], [True, False])
    assert known_features(data, 'x', 'product') is data['product'].x
    data = make_data([[NAN], [NAN]], [False, False])
    assert torch.equal(known_features(data, 'x', 'product'), torch.zeros(2, 1))


def test_content_knn():
    data = make_data([[1.0, 0.0], [NAN, NAN], [0.8, 0.6]], [True, False, True])
    model = ContentKNN(data, k=2, shrink=0.0, edge_type=('customer', 'buys', 'product'))
    score = model(data)(torch.tensor([0]))
    torch.testing.assert_close(score, torch.tensor([[1.0, 0.9 / 0.9**0.5, 0.0]]))


def test_finite_features(monkeypatch):
    monkeypatch.setattr(known_features_module, 'BLOCK', 2)
    data = make_data([[1.0], [2.0], [3.0], [float('inf')], [NAN]])
    message = r"data\['product'\]\.x: row 3 holds NaN or infinite values"
    with pytest.raises(ValueError, match=message):
        finite_features(data, 'x', 'product')
    data['product'].mask_x = torch.tensor([True, True, True, False, False])
    expected = torch.tensor([[1.0], [2.0], [3.0], [2.0], [2.0]])
    assert torch.equal(finite_features(data, 'x', 'product'), expected)


@pytest.mark.parametrize('name', [n for n, m in MODELS.items() if m.min_modalities == 1])
def test_backbones_refuse_nan(name):
    data = HeteroData()
    data['user'].num_nodes = 3
    data['item'].x_text = torch.tensor([[1.0, 2.0], [NAN, 0.0], [1.0, 0.0]])
    data['user', 'rates', 'item'].edge_index = torch.tensor([[0, 1, 2], [0, 1, 2]])
    data['item', 'rated_by', 'user'].edge_index = torch.tensor([[0, 1, 2], [0, 1, 2]])
    with pytest.raises(ValueError, match='NaN or infinite'):
        for transform in MODELS[name].transforms:
            data = transform(data)
        MODELS[name](data)
