import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from motor_geo.nn.models import ItemSimilarity
from motor_geo.nn.models.item_similarity import neighbors
from motor_geo.testing.graphs import small_graph, with_edges


class Ones(ItemSimilarity):
    calls = 0

    def similarity(self, train):
        self.calls += 1
        return np.ones((train.shape[1], train.shape[1]), np.float32)


@pytest.mark.parametrize('k', [1, 3, 50])
@pytest.mark.parametrize('block_size', [1, 7, 1024])
def test_neighbors_equal_naive(k, block_size):
    rng = np.random.default_rng(0)
    left, right = rng.random((20, 6)), rng.random((6, 20))
    column, row = rng.random(20) + 1, rng.random(20) + 1
    order = torch.from_numpy(rng.permutation(20))
    sparse = [csr_matrix(x.astype(np.float32)) for x in (left, right)]
    scales = [x.astype(np.float32) for x in (column, row)]
    found = neighbors(*sparse, *scales, k, order, block_size).toarray()
    for j in range(20):
        similarity = {
            i: sum(left[j, m] * right[m, i] for m in range(6)) / column[i] / row[j]
            for i in range(20)
            if i != j
        }
        best = sorted(similarity, key=lambda i: -similarity[i])[:k]
        assert set(found[j].nonzero()[0]) == set(best)
        for i in best:
            assert found[j, i] == pytest.approx(similarity[i], rel=1e-5)


def test_similarities_are_kept_with_the_edges():
    data = small_graph()
    model = Ones(data)
    assert model(data)(torch.tensor([4])).unique().numel() == 1
    model(data)
    assert model.calls == 1
    model(with_edges(data, torch.tensor([[0, 0], [1, 2]])))
    assert model.calls == 2


def test_scores_are_sums_over_the_items_of_a_user():
    data = with_edges(small_graph(), torch.tensor([[0, 0, 5, 0], [1, 2, 3, 1]]))
    score = Ones(data)(data)(torch.tensor([0, 5, 6]))
    assert score[:, 0].tolist() == [2, 1, 0] and score.dtype == torch.float
