import pytest
import torch

from motor_geo.nn.conv import Propagate
from motor_geo.nn.functional.spmm import transposed
from motor_geo.nn.graph import (
    BipartiteGraph,
    NormalizedGraph,
    SortedEdges,
    build_graph,
    mean_graph,
    opposite_edges,
    shared_order,
    sorted_edge_index,
    sym_norm,
)
from motor_geo.parallel import UserShard
from motor_geo.testing.graphs import small_graph
from motor_geo.typing import ITEM, RATES, USER, set_edges
from tests.golden_case import GoldenCase
from tests.parallel.threads import together


def test_sym_norm_by_hand():
    # User 0 has items 0 and 1, user 1 has item 0.
    edge_index = torch.tensor([[0, 0, 1], [0, 1, 0]])
    expected = torch.tensor([1 / 2, 1 / 2**0.5, 1 / 2**0.5])
    torch.testing.assert_close(sym_norm(edge_index, 3, 3), expected)
    assert sym_norm(edge_index, 3, 3, torch.float64).dtype == torch.float64


def test_sym_norm_golden():
    case = GoldenCase('freedom')
    h = case.hyper
    for edges, key in (('train_edges', 'ui_norm_values'), ('kept_edges', 'kept_norm_values')):
        case.assert_close(sym_norm(case[edges], h['M'], h['N'], torch.float64), key)


def test_sorted_edge_index():
    edge_index = torch.tensor([[3, 1, 0, 2], [2, 0, 1, 0]])
    out, perm = sorted_edge_index(edge_index, 4, 5)
    assert out.is_sorted_by_col and out.sparse_size() == (4, 5)
    assert torch.equal(out.as_tensor(), edge_index[:, perm])
    again, perm = sorted_edge_index(out.as_tensor(), 4, 5)
    assert perm is None and torch.equal(again.as_tensor(), out.as_tensor())
    empty, perm = sorted_edge_index(edge_index[:, :0], 4, 5)
    assert perm is None and empty.size(1) == 0


def test_bipartite_graph_weights_follow_edges():
    edge_index = torch.tensor([[1, 0, 2, 1], [1, 2, 0, 0]])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    graph = BipartiteGraph.from_edges(edge_index, 3, 3, weight)
    expected = torch.zeros(3, 3)
    expected[edge_index[0], edge_index[1]] = weight
    for edges, values, transpose in (
        (graph.to_item, graph.to_item_weight, False),
        (graph.to_user, graph.to_user_weight, True),
    ):
        dense = torch.zeros(3, 3)
        dense[edges.as_tensor().unbind()] = values
        assert torch.equal(dense.t() if transpose else dense, expected)


@pytest.mark.parametrize('many', [1, 10**6])
@pytest.mark.parametrize('dtype', [torch.int32, torch.int64])
def test_sorted_edges(dtype, many, monkeypatch):
    monkeypatch.setattr('motor_geo.nn.graph.MANY_INTERACTIONS', many)
    edge_index = torch.tensor([[0, 0, 2, 3], [1, 4, 4, 1]], dtype=dtype)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    graph = BipartiteGraph.from_edges(edge_index, 4, 5, weight)
    edges = graph.to_user
    assert edges.sparse_size() == (5, 4) and graph.to_item.sparse_size() == (4, 5)
    assert (edges.size(0), edges.size(1)) == (2, 4)
    assert edges.degree().tolist() == [2, 0, 1, 1]
    assert edges.as_tensor().tolist() == [[1, 4, 4, 1], [0, 0, 2, 3]]
    assert graph.to_item.as_tensor().tolist() == [[0, 3, 0, 2], [1, 1, 4, 4]]
    assert graph.to_item_weight.tolist() == [1.0, 4.0, 2.0, 3.0]
    for a, b in zip((*graph.to_item[3:6], *graph.to_item[:3]), edges):
        assert torch.equal(a, b) and (a is b or many > 1)
    # Sorted edges and their weights are not copied.
    assert edges.source.data_ptr() == edge_index[1].data_ptr()
    assert graph.to_user_weight is weight
    # The transpose of weights of this graph is at hand, and that of others is computed.
    for value in (graph.to_user_weight, graph.to_user_weight * 2, None):
        ptr, target, out = transposed(edges, value)
        assert ptr is edges.out_ptr and torch.equal(target, edges.as_tensor()[1][edges.order()])
        if value is not None:
            assert torch.equal(out, value[edges.order()])
            assert (out is edges.out_weight) == (value is weight)
    expected, perm = sorted_edge_index(edge_index.flip(0).long(), 5, 4)
    assert perm is None and torch.equal(edges.to_edge_index().as_tensor(), expected.as_tensor())


@pytest.mark.parametrize('many', [1, 10**6])
@pytest.mark.parametrize('shuffled', [False, True])
def test_order_is_that_of_the_transpose(shuffled, many, monkeypatch):
    monkeypatch.setattr('motor_geo.nn.graph.MANY_INTERACTIONS', many)
    generator = torch.Generator().manual_seed(0)
    key = torch.randperm(200 * 50, generator=generator)[:3000]
    key = key if shuffled else key.sort().values
    edge_index = torch.stack([key // 50, key % 50])
    graph = BipartiteGraph.from_edges(edge_index, 200, 50, torch.arange(3000.0))
    for edges in (graph.to_user, graph.to_item):
        source, target = edges.as_tensor()[:, edges.order()]
        assert torch.equal(source, source.sort().values) and torch.equal(target, edges.target)
        assert torch.equal(edges.weight[edges.order()], edges.out_weight)
    assert (graph.to_user.target is graph.to_item.source) == (many == 1)


@pytest.mark.parametrize('shuffled', [False, True])
def test_normalized_graph(shuffled):
    edge_index = torch.tensor([[0, 0, 2, 3], [1, 4, 4, 1]])
    weight = sym_norm(edge_index, 4, 5, torch.float64)
    expected = BipartiteGraph.from_edges(edge_index, 4, 5, weight)
    order = torch.tensor([2, 0, 3, 1]) if shuffled else torch.arange(4)
    graph = NormalizedGraph.from_edges(edge_index[:, order], 4, 5)
    assert graph.to_user.weight is None and graph.to_item.weight is None
    for a, b in zip(graph.weighted(torch.float64), expected):
        if isinstance(b, SortedEdges):
            a, b = a.as_tensor(), b.as_tensor()
        assert torch.equal(a, b)


@pytest.mark.parametrize('duplicates', [False, True])
def test_opposite_edges(duplicates):
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randperm(35, generator=generator)[:20]  # In no order.
    if duplicates:
        pairs[:4] = pairs[4:8]
    edge_index = torch.stack([pairs // 7, pairs % 7])
    graph = BipartiteGraph.from_edges(edge_index, 5, 7, torch.arange(20.0))
    order = opposite_edges(graph)
    assert torch.equal(order.sort().values, torch.arange(20))
    to_user, to_item = graph.to_user.as_tensor(), graph.to_item.as_tensor()
    assert torch.equal(to_user.flip(0)[:, order], to_item)
    if not duplicates:
        assert torch.equal(graph.to_user_weight[order], graph.to_item_weight)


def test_mean_graph():
    edge_index = torch.tensor([[0, 0, 2, 3], [1, 4, 4, 1]])
    graph = BipartiteGraph.from_edges(edge_index, 4, 5, torch.ones(4, dtype=torch.float64))
    mean = mean_graph(graph)
    assert mean.to_user is graph.to_user and mean.to_user_weight.dtype == torch.float64
    assert mean.to_user_weight.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert mean.to_item_weight.tolist() == [0.5] * 4


@pytest.mark.parametrize('inference', [False, True])
@pytest.mark.parametrize('is_sorted', [False, True])
def test_training_uses_a_graph_of_inference_mode(inference, is_sorted):
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 0, 0, 1]])
    edge_index = edge_index[:, edge_index[1].argsort()] if is_sorted else edge_index
    with torch.inference_mode():
        edge_index = edge_index.clone() if inference else edge_index
        out, _ = sorted_edge_index(edge_index, 3, 2)
        Propagate()(torch.ones(3, 1), out)
    x = torch.ones(3, 1, requires_grad=True)
    Propagate()(x, out, torch.ones(4, requires_grad=True)).sum().backward()
    assert x.grad.flatten().tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize('many', [1, 700, 10**6])
def test_positions_among_the_edges_of_all_users(monkeypatch, many):
    monkeypatch.setattr('motor_geo.nn.graph.MANY_INTERACTIONS', many)
    data = small_graph()
    num_edges = data[RATES].edge_index.size(1)
    edge_index = data[RATES].edge_index[:, torch.randperm(num_edges)]
    edge_index = edge_index[:, edge_index[0].argsort(stable=True)]  # Items in any order.
    set_edges(data, edge_index)
    num_users, num_items = data[USER].num_nodes, data[ITEM].num_nodes
    whole = build_graph(edge_index, num_users, num_items, torch.float)
    found = [[], []]

    def call(world):
        shard = UserShard(world, data, bounds=[0, 20, 20, num_users])
        return shard, shared_order(shard, num_items)

    for shard, order in together(3, call):
        cut = shard.cut(data)[RATES].edge_index
        part = BipartiteGraph.from_edges(cut, len(shard), num_items, torch.ones(cut.size(1)))
        # The users of a process are numbered from zero.
        own = part.to_user.as_tensor() + torch.tensor([[0], [shard.first]])
        assert own.equal(whole.to_user.as_tensor()[:, order[0]])
        own = part.to_item.as_tensor() + torch.tensor([[shard.first], [0]])
        assert own.equal(whole.to_item.as_tensor()[:, order[1]])
        for orders, positions in zip(found, order):
            orders.append(positions)
    for orders in found:
        assert torch.cat(orders).sort().values.equal(torch.arange(num_edges))
