import pytest
import torch

from motor_geo.nn import FeatureProjection
from motor_geo.nn.fold_in import (
    fold_in_functions,
    fold_in_graph,
    fold_in_mean,
    fold_in_ridge,
    fold_in_scores,
)
from motor_geo.nn.models import BPR, EASE, ContentKNN, LightGCN, TokenALS
from motor_geo.testing.graphs import NUM_ITEMS, NUM_USERS, small_graph
from motor_geo.typing import RATES, Scores, modalities

ROW, INDEX = torch.tensor([1, 0, 1, 3]), torch.tensor([2, 0, 1, 2])  # Nobody knows user 2.


@pytest.fixture
def data():
    return small_graph()


def encoder(data):
    sizes = {m: data['item'][f'x_{m}'].size(1) for m in modalities(data)}
    return FeatureProjection(sizes, 8)


def test_mean_of_items():
    item = torch.randn(5, 3, dtype=torch.float64)
    count = torch.tensor([4, 9, 0, 1, 1])
    out = fold_in_mean(item, count, ROW, INDEX, 4, 0.5)
    expected = [item[0] / 2, item[2] + item[1] / 3, torch.zeros(3), item[2]]
    torch.testing.assert_close(out, torch.stack([x.double() for x in expected]))


@pytest.mark.parametrize('size', [4, 700])  # More than a block.
def test_least_squares(size):
    item = torch.randn(5, 3, dtype=torch.float64)
    weight = torch.rand(size, dtype=torch.float64) + 0.1
    out = fold_in_ridge(item, ROW, INDEX, size, 0.3, weight)
    for user in range(size):
        own = item[INDEX[ROW == user]]
        left = own.t() @ own + 0.3 * item.t() @ item + weight[user] * torch.eye(3).double()
        torch.testing.assert_close(out[user], torch.linalg.solve(left, own.sum(dim=0)))


def test_users_in_the_graph(data):
    torch.manual_seed(0)
    model = LightGCN(data, encoder(data), channels=8, num_layers=1).eval()
    out = fold_in_graph(model, data, ROW, INDEX, 4)
    degree = data[RATES].edge_index[1].bincount(minlength=NUM_ITEMS)
    degree = degree + INDEX.bincount(minlength=NUM_ITEMS)
    own = ROW.bincount(minlength=4)
    item, expected = model.encode_items(data), torch.zeros(4, 8)
    for user, index in zip(ROW.tolist(), INDEX.tolist()):
        expected[user] += item[index] / (degree[index] * own[user]).sqrt() / 2
    torch.testing.assert_close(out, expected)
    assert model.user_embedding.size(0) == NUM_USERS


def test_a_solved_user_is_folded_into_her_own_place(data):
    torch.manual_seed(0)
    model = TokenALS(data, encoder(data), channels=8, num_steps=50)
    for _ in zip(range(3), model.fit(data)):
        pass
    with torch.no_grad():
        item = model(data).item
        next(iter(model.fit(data)))  # Users are solved for the items of before.
    emb = model(data)._replace(item=item)
    fold = fold_in_functions(model, data, emb)['least squares of training']
    user, index = data[RATES].edge_index
    torch.testing.assert_close(fold(user, index, NUM_USERS), emb.user, rtol=1e-3, atol=1e-4)


def test_ways_of_a_model(data):
    graph = fold_in_functions(*(lambda m: (m, data, m(data)))(LightGCN(data, channels=8)))
    assert 'graph' in graph and 'least squares of training' not in graph
    for fold in graph.values():
        assert fold(ROW, INDEX, 4).shape == (4, 8)
    assert 'graph' in fold_in_functions(*(lambda m: (m, data, m(data)))(BPR(data, channels=8)))


@pytest.mark.parametrize('cls', [EASE, ContentKNN])
def test_models_without_vectors_score_histories(data, cls):
    scores = cls(data)(data)
    user, index = data[RATES].edge_index
    mine = user < 3
    folded = fold_in_scores(scores, user[mine], index[mine], 3)
    users = torch.tensor([2, 0, 1])
    torch.testing.assert_close(folded(users), scores(users))
    with pytest.raises(ValueError, match='can only score users of its graph'):
        fold_in_scores(Scores(lambda user: user, 2, 2), ROW, INDEX, 4)
