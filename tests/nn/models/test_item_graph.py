import copy
import pickle

import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.nn.models.item_graph import ItemGraph, modality_weights
from motor_geo.typing import ITEM, similar


def make_data():
    data = HeteroData()
    data[ITEM].num_nodes = 4
    edges = {'image': [[0, 1, 2], [1, 0, 1]], 'text': [[0, 3], [1, 2]]}
    weights = {'image': [1.0, 2.0, 3.0], 'text': [10.0, 20.0]}
    for name in edges:
        data[similar(name)].edge_index = torch.tensor(edges[name])
        data[similar(name)].edge_weight = torch.tensor(weights[name])
    return data


def dense(graph):
    edge_index, weight = graph
    out = torch.zeros(4, 4, dtype=weight.dtype)
    out[edge_index[0], edge_index[1]] = weight
    return out.tolist()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_weighted_sum(dtype):
    data = make_data()
    edge_index, weight = ItemGraph({'image': 0.5, 'text': 0.1})(data, dtype)
    assert weight.dtype == dtype and edge_index.is_sorted_by_col
    expected = torch.zeros(4, 4)
    expected[0, 1], expected[1, 0], expected[2, 1], expected[3, 2] = 1.5, 1.0, 1.5, 2.0
    torch.testing.assert_close(torch.tensor(dense((edge_index, weight))), expected)


def test_is_kept_for_the_same_graphs():
    data, graph = make_data(), ItemGraph({'image': 1.0, 'text': 1.0})
    first = graph(data, torch.float32)
    assert graph(data, torch.float32)[0] is first[0]
    for clone in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert clone(data, torch.float32)[0] is not first[0]
        assert dense(clone(data, torch.float32)) == dense(first)
    data[similar('text')].edge_weight[0] = 5  # In place.
    assert graph(data, torch.float32)[1].tolist() == [2.0, 6.0, 3.0, 20.0]
    data[ITEM].num_nodes = 5
    assert graph(data, torch.float32)[0].sparse_size() == (5, 5)
    assert graph(data, torch.float64)[1].dtype == torch.float64


def test_serving_leaves_nothing_behind_that_training_cannot_use():
    data, graph = make_data(), ItemGraph({'image': 1.0, 'text': 1.0})
    with torch.inference_mode():
        graph(data, torch.float32)
    x = torch.rand(4, requires_grad=True)
    edge_index, weight = graph(data, torch.float32)
    (x[edge_index[0]] * weight).sum().backward()
    assert x.grad.tolist() == [11.0, 2.0, 3.0, 20.0]


def test_missing_graph():
    with pytest.raises(ValueError, match="'Model' needs the item graph .*audio.*apply 'ItemKNN'"):
        ItemGraph({'audio': 1.0}).check(make_data(), 'Model')
    with pytest.raises(ValueError, match=r"'similar_text', 'product'.*\(node_type='product'\)"):
        ItemGraph({'text': 1.0}, 'product').check(make_data(), 'Model')


def test_a_graph_without_transforms():
    data = make_data()
    edge_types = data.edge_types
    message = r"^The graph has no \('item', 'similar_audio', 'item'\); apply the 'transforms' of"
    with pytest.raises(ValueError, match=message):
        ItemGraph({'audio': 1.0})(data, torch.float32)
    assert data.edge_types == edge_types


def test_modality_weights():
    assert modality_weights(['image', 'text']) == {'image': 0.1, 'text': 0.9}
    assert modality_weights(['audio', 'image', 'text']) == {
        'audio': 0.45,
        'image': 0.1,
        'text': 0.45,
    }
    assert modality_weights(['audio', 'text']) == {'audio': 0.5, 'text': 0.5}
    assert modality_weights(['image']) == {'image': 1.0}
    assert modality_weights(['a', 'b'], {'b': 2, 'a': 1}) == {'a': 1.0, 'b': 2.0}
    with pytest.raises(ValueError, match=r"must name the modalities \['a'\] \(got \['b'\]\)"):
        modality_weights(['a'], {'b': 1.0})
