import numpy as np
import pytest
import torch

from motor_geo.nn.models import ItemKNN
from motor_geo.testing.graphs import NUM_ITEMS, NUM_USERS, small_graph, with_edges
from motor_geo.typing import RATES


def naive_scores(edges, num_users, num_items, k):
    r"""Sums of cosines over the training items of a user, item by item."""
    users = [{user for user, item in edges if item == i} for i in range(num_items)]
    score = np.zeros((num_users, num_items))
    for j in range(num_items):
        cosine = np.zeros(num_items)
        for i in range(num_items):
            if i != j and users[i] and users[j]:
                cosine[i] = len(users[i] & users[j]) / np.sqrt(len(users[i]) * len(users[j]))
        least = np.sort(cosine)[-k] if k < num_items else 0
        cosine[cosine < least] = 0
        for user in users[j]:
            score[user] += cosine
    return score


def test_neighbors_by_hand():
    # Users of the items: {0, 1}, {0, 1}, {1, 2}, {3}.
    edges = torch.tensor([[0, 1, 0, 1, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3]])
    data = with_edges(small_graph(), edges)
    scores = ItemKNN(data, k=1)(data)(torch.tensor([2, 0, 3]))
    # User 2 knows item 2, to which 0 and 1 are equally similar; one of them is its neighbor.
    assert scores[0].sum().item() == pytest.approx(0.5) and scores[0, 2] == 0
    assert scores[1, :4].tolist() == pytest.approx([1, 1, 0, 0])  # Item 0 of item 1, and back.
    assert scores[2].abs().sum() == 0  # Nobody shares a user with item 3.


def test_a_draw_decides_between_equal_neighbors():
    edges = torch.tensor([[0, 1, 0, 1, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3]])
    data, found = with_edges(small_graph(), edges), set()
    for seed in range(20):
        torch.manual_seed(seed)
        scores = ItemKNN(data, k=1)(data)(torch.tensor([2]))
        found.add(int(scores[0].argmax()))
    assert found == {0, 1}


def test_equals_naive():
    data = small_graph()
    edges = data[RATES].edge_index
    scores = ItemKNN(data, k=NUM_ITEMS)(data)(torch.arange(NUM_USERS))
    expected = naive_scores(edges.t().tolist(), NUM_USERS, NUM_ITEMS, NUM_ITEMS)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_every_item_has_its_neighbors():
    data = small_graph()
    train = ItemKNN(data).interactions(data)
    every = ItemKNN(data, k=NUM_ITEMS).similarity(train).toarray()
    count = np.maximum(train.getnnz(axis=0), 1)
    np.testing.assert_allclose(every, every.T, atol=1e-7)
    assert every.max() <= 1 + 1e-6 and not every.diagonal().any()
    common = (train.T @ train).toarray() / np.sqrt(count[:, None] * count)
    np.testing.assert_allclose(every, common - np.diag(common.diagonal()), atol=1e-6)
    some = ItemKNN(data, k=5).similarity(train).toarray()
    assert (some > 0).sum(axis=1).max() == 5
    np.testing.assert_allclose(-np.sort(-some)[:, :5], -np.sort(-every)[:, :5], atol=1e-7)


def test_shrinkage_holds_back_rare_items():
    # Users of the items: {0, 1, 2}, {0, 1, 3}, {4}, {4}.
    edges = torch.tensor([[0, 1, 2, 0, 1, 3, 4, 4], [0, 0, 0, 1, 1, 1, 2, 3]])
    data = with_edges(small_graph(), edges)
    similarity = ItemKNN(data, shrink=2.0).similarity(ItemKNN(data).interactions(data)).toarray()
    assert similarity[0, 1] == pytest.approx(2 / (3 + 2)) and similarity[0, 1] == similarity[1, 0]
    assert similarity[2, 3] == pytest.approx(1 / (1 + 2))
    assert ItemKNN(data).similarity(ItemKNN(data).interactions(data))[2, 3] == 1


def test_arguments():
    with pytest.raises(ValueError, match=r"^'k' must be at least 1 \(got 0\)$"):
        ItemKNN(small_graph(), k=0)
    with pytest.raises(ValueError, match=r"^'shrink' must be at least 0 and finite"):
        ItemKNN(small_graph(), shrink=-1.0)
    with pytest.raises(ValueError, match=r"^'on' must be 'interactions' \(got 'text'\)$"):
        ItemKNN(small_graph(), on='text')
