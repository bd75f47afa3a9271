import copy

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import BaseStorage, EdgeStorage, NodeStorage

from motor_geo.typing import (
    RATED_BY,
    RATES,
    Batch,
    Embeddings,
    EvalTargets,
    LazyEdges,
    Rows,
    edge_blocks,
    feature_table,
    find_edges,
    modalities,
    num_nodes,
    set_edges,
    similar,
    unread_edges,
    with_edges,
)
from motor_geo.utils.cache import fingerprint


def test_names():
    assert RATES == ('user', 'rates', 'item')
    assert RATED_BY == ('item', 'rated_by', 'user')
    assert similar('text') == ('item', 'similar_text', 'item')


def test_what_a_graph_has():
    data = HeteroData()
    data['product'].x, data['product'].x_text = torch.ones(3, 2), torch.ones(3, 4)
    data['customer'].city = 'Oslo'
    data['customer', 'buys', 'product'].edge_index = torch.tensor([[0, 1], [2, 2]])
    assert num_nodes(data, 'product') == 3
    assert modalities(data, node_type='product') == ['text', 'x']
    assert feature_table(data, 'x', 'product') is data['product'].x
    assert feature_table(data, 'text', 'product') is data['product'].x_text
    assert find_edges(data, ('customer', 'buys', 'product')).tolist() == [[0, 1], [2, 2]]
    for ask, words in [
        (lambda: num_nodes(data, 'customer'), r"no data\['customer'\].num_nodes"),
        (lambda: num_nodes(data, 'user'), "no nodes 'user', it has 'product', 'customer'"),
        (lambda: find_edges(data, RATES), "no edges .*'rates'.* it has .*'buys'"),
        (lambda: feature_table(data, 'image', 'product'), r"x_image is missing.*\['text', 'x'\]"),
        (lambda: modalities(data, 'GNN', 3, 'product'), r"'GNN' needs .* 3 mod.*\['text', 'x'\]"),
    ]:
        with pytest.raises(ValueError, match=words):
            ask()
    assert data.edge_types == [('customer', 'buys', 'product')]


def test_opposite_edges_are_computed_when_they_are_read(tmp_path):
    data, edge_index = HeteroData(), torch.tensor([[0, 0, 2], [3, 1, 1]])
    data['user'].num_nodes, data['item'].num_nodes = 3, 4
    data[RATED_BY].edge_attr = torch.ones(3)
    set_edges(data, edge_index)

    def computed(data):  # Without reading it.
        return isinstance(data[RATED_BY]._mapping.data['edge_index'], torch.Tensor)

    assert find_edges(data, RATES) is edge_index
    other = with_edges(data, edge_index[:, :2])
    assert not computed(data) and not computed(other) and not computed(copy.copy(data))
    assert find_edges(other, RATED_BY).tolist() == [[3, 1], [0, 0]]
    assert computed(other) and not computed(data)
    torch.save(data, tmp_path / 'data.pt')
    with torch.serialization.safe_globals([HeteroData, BaseStorage, NodeStorage, EdgeStorage]):
        loaded = torch.load(tmp_path / 'data.pt', weights_only=True)
    for graph in (
        copy.deepcopy(data),
        copy.copy(data),
        loaded,
        HeteroData.from_dict(data.to_dict()),
        copy.copy(data).to('cpu'),
    ):
        assert set(graph[RATED_BY].keys()) == {'edge_attr', 'edge_index'}
        assert graph.edge_index_dict[RATED_BY].tolist() == [[3, 1, 1], [0, 0, 2]]
        assert graph[RATED_BY].num_edges == 3 and graph.validate()
    assert type(loaded[RATED_BY]._mapping) is dict
    reverse = data[RATED_BY].edge_index
    assert data[RATED_BY].edge_index is reverse and reverse.is_contiguous()
    data[RATED_BY].edge_index = edge_index
    assert data[RATED_BY]['edge_index'] is edge_index
    del data[RATED_BY].edge_index
    assert 'edge_index' not in data[RATED_BY]


def test_edges_are_read_when_they_are_needed():
    reads, edge_index = [], torch.tensor([[0, 0, 2], [3, 1, 1]])

    def blocks(side):
        reads.append(side)
        return edge_index[side].split(2)

    data = HeteroData()
    data[RATES].shard = 'a'
    set_edges(data, LazyEdges(3, blocks))
    other = with_edges(data, data[RATES]._mapping.data['edge_index'])
    assert {'shard', 'edge_index'} == set(other[RATES].keys()) and other[RATES].shard == 'a'
    assert [x.tolist() for x in edge_blocks(other, RATES, 1)] == [[3, 1], [1]] and reads == [1]
    reads.clear()
    lazy = [unread_edges(other[edge_type]) for edge_type in (RATES, RATED_BY)]
    assert not reads and str(lazy[0]) == 'LazyEdges(3 edges)'
    flipped = edge_index.flip(0)
    assert fingerprint(lazy) == fingerprint([edge_index, flipped]) and reads == [0, 1, 1, 0]
    assert fingerprint(lazy[0].to('cpu')) == fingerprint(edge_index) != fingerprint(flipped)
    reads.clear()
    assert find_edges(other, RATES).equal(edge_index) and find_edges(other, RATED_BY).equal(flipped)
    assert find_edges(other, RATES) is unread_edges(other[RATES]) and reads == [0, 1, 1, 0]
    assert unread_edges(data[RATES]) is lazy[0]  # Copies do not read for the original.
    assert [x.tolist() for x in edge_blocks(other, RATES, 0)] == [[0, 0, 2]]
    whole = with_edges(data, edge_index)
    assert whole[RATES].edge_index is edge_index and whole[RATED_BY].edge_index.equal(flipped)
    assert len(reads) == 4


def test_tuples():
    user, item = torch.ones(2, 3), torch.ones(4, 3)
    emb = Embeddings(user, item)
    assert emb.user is user and emb.item is item
    user, pos, neg = Batch(user=1, pos=2, neg=3)
    assert (user, pos, neg) == (1, 2, 3)


def test_eval_targets_from_pairs():
    user = np.array([7, 2, 7, 0, 2, 7], dtype=np.int32)
    item = np.array([5, 9, 1, 4, 3, 8], dtype=np.int32)
    targets = EvalTargets.from_pairs(user, item)
    assert targets.user.tolist() == [0, 2, 7]
    assert targets.ptr.tolist() == [0, 1, 3, 6]
    assert targets.item.tolist() == [4, 9, 3, 5, 1, 8]  # In the order given.
    assert targets.count.tolist() == [1, 2, 3]
    assert targets.index.tolist() == [[0, 1, 1, 2, 2, 2], [4, 9, 3, 5, 1, 8]]
    assert len(targets) == 3
    assert targets.candidates is None
    for tensor in (targets.user, targets.ptr, targets.item):
        assert tensor.dtype == torch.long

    pairs = {(targets.user[r].item(), i.item()) for r, i in targets.index.t()}
    assert pairs == set(zip(user.tolist(), item.tolist()))


def test_eval_targets_empty():
    targets = EvalTargets.from_pairs(np.array([]), np.array([]))
    assert len(targets) == 0
    assert targets.ptr.tolist() == [0]
    assert targets.index.size() == (2, 0)


def test_eval_targets_candidates_and_device():
    targets = EvalTargets.from_pairs(np.array([1]), np.array([2]), np.array([2, 3]))
    assert targets.candidates.tolist() == [2, 3]
    moved = targets.to('meta')
    for tensor in (moved.user, moved.ptr, moved.item, moved.candidates):
        assert tensor.device.type == 'meta'
    assert targets.item.device.type == 'cpu'
    assert EvalTargets.from_pairs(np.array([1]), np.array([2])).to('meta').candidates is None
    with pytest.raises(AttributeError):
        targets.user = torch.ones(1)


def test_batch_rows():
    emb = Embeddings(torch.randn(4, 3, requires_grad=True), torch.randn(5, 2, 3))
    batch = Batch(torch.tensor([3, 0]), torch.tensor([1, 1]), torch.tensor([4, 0]))
    user, pos, neg = batch.rows(emb)
    assert torch.equal(user, emb.user[[3, 0]])
    assert torch.equal(pos, emb.item[[1, 1]])
    assert torch.equal(neg, emb.item[[4, 0]])
    assert batch._replace(neg=batch.neg[:0]).rows(emb)[2].size() == (0, 2, 3)


def test_batch_scores():
    emb = Embeddings(torch.randn(4, 3), torch.randn(5, 3))
    batch = Batch(torch.tensor([3, 0]), torch.tensor([1, 1]), torch.tensor([4, 0]))
    pos, neg = batch.scores(emb)
    table = emb.user @ emb.item.t()
    torch.testing.assert_close(pos, table[[3, 0], [1, 1]])
    torch.testing.assert_close(neg, table[[3, 0], [4, 0]])


def test_rows_scores():
    user, pos, neg = torch.randn(3, 7, 4)
    expected = (user @ pos.t()).diagonal(), (user @ neg.t()).diagonal()
    torch.testing.assert_close(Rows(user, pos, neg).scores(), expected)
