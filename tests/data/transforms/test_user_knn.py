import copy
import math

import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.data import InteractionSVD, UserKNN
from motor_geo.typing import RATES

EDGE_TYPE = ('user', 'similar', 'user')


def graph(edge_index, num_users, num_items, edge_type=RATES):
    data = HeteroData()
    data[edge_type[0]].num_nodes, data[edge_type[2]].num_nodes = num_users, num_items
    data[edge_type].edge_index = edge_index
    return data


def naive(edge_index, num_users, k):
    items = [set() for _ in range(num_users)]
    for u, i in edge_index.t().tolist():
        items[u].add(i)
    edges, weights = [], []
    for u in range(num_users):
        counts = [(-len(items[u] & items[v]), v) for v in range(num_users) if v != u]
        nearest = sorted(pair for pair in counts if pair[0] < 0)[:k]
        total = sum(math.exp(-count) for count, _ in nearest)
        edges += [(v, u) for _, v in nearest]
        weights += [math.exp(-count) / total for count, _ in nearest]
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t(), torch.tensor(weights)


@pytest.mark.parametrize('block_size', [1, 37, 2**23])
@pytest.mark.parametrize('k', [1, 5, 100])
def test_user_knn_equals_a_naive_count(k, block_size):
    torch.manual_seed(0)
    num_users, num_items = 30, 12
    edge_index = torch.stack(
        [torch.randint(num_users - 2, (90,)), torch.randint(num_items, (90,))]
    )  # In no order, with repetitions; two users have nothing.
    data = graph(edge_index, num_users, num_items)
    out = UserKNN(k, block_size=block_size, cache=False)(copy.copy(data))[EDGE_TYPE]
    expected, weight = naive(edge_index, num_users, k)
    assert torch.equal(out.edge_index, expected)
    torch.testing.assert_close(out.edge_weight, weight)


def test_user_knn_by_hand():
    # Users 0 and 1 share items 0 and 1, user 2 shares item 1 with both; nobody knows user 3.
    edge_index = torch.tensor([[0, 0, 1, 1, 2, 3], [0, 1, 0, 1, 1, 2]])
    out = UserKNN(k=2, cache=False)(graph(edge_index, 4, 3))[EDGE_TYPE]
    assert out.edge_index.tolist() == [[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]
    e = math.e
    expected = torch.tensor([e / (1 + e), 1 / (1 + e), e / (1 + e), 1 / (1 + e), 0.5, 0.5])
    torch.testing.assert_close(out.edge_weight, expected)


def test_user_knn_of_large_counts_is_finite():
    user, item = torch.arange(3).repeat_interleave(400), torch.arange(400).repeat(3)
    out = UserKNN(cache=False)(graph(torch.stack([user, item]), 3, 400))[EDGE_TYPE]
    torch.testing.assert_close(out.edge_weight, torch.full((6,), 0.5))


def test_user_knn_without_interactions():
    data = graph(torch.empty(2, 0, dtype=torch.long), 3, 0)
    assert UserKNN(cache=False)(data)[EDGE_TYPE].edge_index.shape == (2, 0)


def test_user_knn_of_other_names():
    edge_type = ('customer', 'buys', 'product')
    edge_index = torch.tensor([[0, 1], [0, 0]])
    out = UserKNN(cache=False, edge_type=edge_type)(graph(edge_index, 2, 1, edge_type))
    assert out['customer', 'similar', 'customer'].edge_index.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match='buys'):
        UserKNN(cache=False)(graph(edge_index, 2, 1, edge_type))


def test_user_knn_cache(tmp_path, monkeypatch):
    monkeypatch.setattr('motor_geo.utils.cache.cache_dir', lambda: str(tmp_path))
    edge_index = torch.tensor([[0, 1, 1], [0, 0, 1]])
    first = UserKNN()(graph(edge_index, 3, 2))[EDGE_TYPE]
    assert len(list(tmp_path.iterdir())) == 1

    def fail(*args):
        raise AssertionError('computed again')

    monkeypatch.setattr('motor_geo.data.transforms.user_knn.common_items', fail)
    again = UserKNN()(graph(edge_index.flip(1), 3, 2))[EDGE_TYPE]  # The order does not count.
    assert torch.equal(again.edge_index, first.edge_index)
    assert torch.equal(again.edge_weight, first.edge_weight)
    for other in (UserKNN(k=1), UserKNN()):
        with pytest.raises(AssertionError, match='computed again'):
            other(graph(edge_index, 3 if other.k == 1 else 4, 2))


def test_user_knn_of_new_items():
    edge_index = torch.tensor([[0, 1], [0, 0]])
    transform = UserKNN(cache=False)
    old = transform(graph(edge_index, 2, 1))
    new = graph(edge_index, 2, 4)
    out = transform.extend(old, new)
    assert out[EDGE_TYPE].edge_index is old[EDGE_TYPE].edge_index
    assert EDGE_TYPE not in new.edge_types


def test_user_knn_rejects_bad_arguments():
    with pytest.raises(ValueError, match='k and block_size must be at least 1, got 0'):
        UserKNN(k=0)
    with pytest.raises(ValueError, match='edge_type must be a triple'):
        UserKNN(edge_type='rates')
    assert str(UserKNN(20)) == 'UserKNN(k=20)'


@pytest.mark.parametrize(
    ('edge_index', 'message'),
    [
        ([[0, 1, 2], [0, 3, 1]], "holds 'item' 3, expected indices from 0 to 1"),
        ([[0, 3], [0, 1]], "holds 'user' 3, expected indices from 0 to 2"),
        ([[0, -1], [0, 1]], "holds 'user' -1, expected indices from 0 to 2"),
    ],
)
@pytest.mark.parametrize('transform', [UserKNN(cache=False), InteractionSVD(1, cache=False)])
def test_edges_out_of_range(transform, edge_index, message):
    with pytest.raises(ValueError, match=message):
        transform(graph(torch.tensor(edge_index), 3, 2))
