import numpy as np
import pytest
import torch

from motor_geo.nn.models import RP3beta
from motor_geo.testing.graphs import NUM_ITEMS, NUM_USERS, small_graph, with_edges
from motor_geo.typing import RATES


def walks(data, alpha, beta):
    r"""Third power of the elementwise power of transition probabilities on
    the whole graph, from users to items.
    """
    size = NUM_USERS + NUM_ITEMS
    adjacency = np.zeros((size, size))
    user, item = data[RATES].edge_index.numpy()
    adjacency[user, NUM_USERS + item] = adjacency[NUM_USERS + item, user] = 1
    degree = np.maximum(adjacency.sum(axis=1), 1)
    steps = np.where(adjacency > 0, (adjacency / degree[:, None]) ** alpha, 0)
    out = np.linalg.matrix_power(steps, 3)[:NUM_USERS, NUM_USERS:]
    return out / degree[NUM_USERS:] ** beta, degree[:NUM_USERS], adjacency[:NUM_USERS, NUM_USERS:]


@pytest.mark.parametrize('alpha, beta', [(1.0, 0.0), (0.6, 0.4), (1.7, 0.9)])
def test_equals_powers_of_dense_matrices(alpha, beta):
    data = small_graph()
    expected, degree, train = walks(data, alpha, beta)
    model = RP3beta(data, k=NUM_ITEMS, alpha=alpha, beta=beta)
    scores = model(data)(torch.arange(NUM_USERS)).double().numpy()
    scores *= degree[:, None] ** -alpha  # The factor of a user, which changes no ranking.
    unknown = train == 0  # Walks that end where they began are left out.
    np.testing.assert_allclose(scores[unknown], expected[unknown], rtol=1e-4, atol=1e-7)


def test_by_hand():
    # User 0 has the items 0 and 1, user 1 the items 0 and 2.
    data = with_edges(small_graph(), torch.tensor([[0, 0, 1, 1], [0, 1, 0, 2]]))
    scores = RP3beta(data, k=5, alpha=1.0, beta=1.0)(data)(torch.tensor([0]))
    # From item 0, half of the walks go to user 1, and half of them on to item 2.
    assert scores[0, 2].item() == pytest.approx(0.25)
    scores = RP3beta(data, k=5, alpha=2.0, beta=0.0)(data)(torch.tensor([0]))
    assert scores[0, 2].item() == pytest.approx(0.0625)
    assert scores[0, 0].item() == pytest.approx(0.25)  # From item 1 by user 0, (1 / 1 / 2)^2.


def test_beta_ranks_popular_items_lower():
    data = small_graph()
    count = data[RATES].edge_index[1].bincount(minlength=NUM_ITEMS).double()
    means = []
    for beta in (0.0, 0.5, 1.0):
        item = RP3beta(data, k=NUM_ITEMS, beta=beta).recommend(data, k=10)[1]
        means.append(float(count[item].mean()))
    assert means[0] > means[1] + 1 > means[2] + 2


def test_neighbors_are_the_most_frequent_ends():
    data = small_graph()
    model = RP3beta(data, k=4, beta=0.3)
    train = model.interactions(data)
    few = model.similarity(train).toarray()
    every = RP3beta(data, k=NUM_ITEMS, beta=0.3).similarity(train).toarray()
    assert (few > 0).sum(axis=1).max() == 4
    np.testing.assert_allclose(-np.sort(-few)[:, :4], -np.sort(-every)[:, :4], rtol=1e-6)
    with pytest.raises(ValueError, match=r"^'k' must be at least 1 \(got 0\)$"):
        RP3beta(data, k=0)
