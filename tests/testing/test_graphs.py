import torch

from motor_geo.nn.models import BPR, FREEDOM
from motor_geo.testing.graphs import (
    new_items,
    prepare,
    random_batch,
    small_graph,
    with_edges,
    with_names,
    with_types,
)
from motor_geo.typing import ITEM, RATED_BY, RATES, modalities, similar


def test_copies_are_independent():
    data = small_graph()
    data[ITEM].x_audio = torch.zeros(173, 2)
    data[RATES].edge_index = torch.zeros(2, 1, dtype=torch.long)
    assert modalities(small_graph()) == ['image', 'text']
    assert small_graph()[RATES].edge_index.size(1) > 500
    assert small_graph()[ITEM].token_id.shape == (173, 4)


def test_with_edges():
    edge_index = torch.tensor([[3, 5], [7, 2]])
    data = with_edges(small_graph(), edge_index)
    assert data[RATES].edge_index.tolist() == [[3, 5], [7, 2]]
    assert data[RATED_BY].edge_index.tolist() == [[7, 2], [3, 5]]


def test_with_names():
    data = with_names(small_graph(), {'text': 'type'})
    assert modalities(data) == ['image', 'type']
    assert torch.equal(data[ITEM].x_type, small_graph()[ITEM].x_text)


def test_with_types():
    data = with_types(small_graph(), ('customer', 'buys', 'product'))
    assert set(data.node_types) == {'customer', 'product'}
    assert set(data.edge_types) == {
        ('customer', 'buys', 'product'),
        ('product', 'rated_by', 'customer'),
    }
    assert modalities(data, node_type='product') == ['image', 'text']
    edge_index = data['customer', 'buys', 'product'].edge_index
    assert torch.equal(edge_index, small_graph()[RATES].edge_index)
    assert RATES in small_graph().edge_types


def test_prepare():
    assert similar('text') not in prepare(BPR, small_graph()).edge_types
    data = prepare(FREEDOM, small_graph())
    assert similar('text') in data.edge_types and similar('image') in data.edge_types
    assert similar('text') not in small_graph().edge_types
    more = new_items(FREEDOM, data)
    assert more[ITEM].num_nodes == more[ITEM].x_text.size(0) == 177
    assert more[similar('text')].edge_index.max() == 176


def test_random_batch():
    data = small_graph()
    edges = set(zip(*data[RATES].edge_index.tolist()))
    batch = random_batch(data, size=20)
    assert set(zip(batch.user.tolist(), batch.pos.tolist())) <= edges
    assert batch.neg.shape == (20,)
    assert [len(value) for value in random_batch(data, size=0)] == [0, 0, 0]
