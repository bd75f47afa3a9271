import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.data import ItemKNN
from motor_geo.data.transforms.knn import knn_graph_cosine
from motor_geo.data.transforms.knn_ivf import knn_graph_ivf


def clusters(num_rows, width=12, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((20, width))
    x = centers[rng.integers(0, 20, num_rows)] + 0.3 * rng.standard_normal((num_rows, width))
    return x.astype(np.float32)


def test_all_cells_give_the_exact_graph():
    x = clusters(500)
    exact, similarity = knn_graph_cosine(x, 6)
    index, value, recall = knn_graph_ivf(x, 6, num_probes=1000)
    assert recall == 1.0
    assert torch.equal(index, exact)
    torch.testing.assert_close(value, similarity, atol=1e-6, rtol=0)


def test_recall_is_that_of_the_lists():
    x = clusters(900)
    exact, _ = knn_graph_cosine(x, 8)
    index, value, recall = knn_graph_ivf(x, 8, num_probes=1)
    found = [len(set(a[1:]) & set(b)) for a, b in zip(exact.tolist(), index.tolist())]
    assert recall == pytest.approx(sum(found) / (7 * len(x)))  # The sample is everything here.
    assert 0.3 < recall < 1
    assert index[:, 0].tolist() == list(range(len(x)))
    assert (value[:, 1:].diff(dim=1) <= 0).all()
    more = [knn_graph_ivf(x, 8, num_probes=n)[2] for n in (1, 3, 10)]
    assert more == sorted(more)


@pytest.mark.parametrize('threads', [1, 2])
def test_threads_and_blocks_change_nothing(threads):
    x, before = clusters(700), torch.get_num_threads()
    expected = knn_graph_ivf(x, 5, num_probes=2)
    try:
        torch.set_num_threads(threads)
        out = knn_graph_ivf(x, 5, num_probes=2, block_size=100)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out[0], expected[0]) and out[2] == expected[2]


def test_zero_rows_and_lists_that_are_too_short():
    x = clusters(60)
    x[7] = 0
    index, value, _ = knn_graph_ivf(x, 60, num_probes=1)
    assert index[7].tolist() == [7] * 60 and value[7, 1:].eq(0).all()
    alone = index[0] == 0
    assert 1 <= alone.sum() and value[0][alone][1:].eq(0).all()
    assert not (index[0] == 7).any()
    zeros = knn_graph_ivf(np.zeros((4, 3), np.float32), 2)
    assert zeros[0].tolist() == [[i, i] for i in range(4)]


def test_copies_of_a_row():
    x = clusters(100)
    x[40:60] = x[3]  # More than a list holds.
    index, value, recall = knn_graph_ivf(x, 4, num_probes=1000)
    assert index[:, 0].tolist() == list(range(100)) and recall <= 1
    torch.testing.assert_close(value[40:60], torch.ones(20, 4))
    assert all(len(set(row)) == 4 for row in index.tolist())


def test_transform(tmp_path, monkeypatch):
    monkeypatch.setenv('PYG_HOME', str(tmp_path))
    data = HeteroData()
    for m, seed in (('image', 1), ('text', 2)):
        data['item'][f'x_{m}'] = torch.from_numpy(clusters(300, seed=seed))
    exact = ItemKNN(k=4, weighting='cosine', cache=False)(data.clone())
    transform = ItemKNN(k=4, weighting='cosine', method='ivf', num_probes=1000)
    for _ in range(2):  # Computed, and read from the cache.
        out = transform(data.clone())
        for edge_type in exact.edge_types:
            a, b = exact[edge_type], out[edge_type]
            assert torch.equal(a.edge_index, b.edge_index)
            torch.testing.assert_close(a.edge_weight, b.edge_weight)
        assert set(transform.recall.values()) == {1.0}
    with pytest.raises(ValueError, match="method must be one of exact, ivf, got 'hnsw'"):
        ItemKNN(method='hnsw')
    with pytest.raises(ValueError, match='num_probes must be at least 1'):
        ItemKNN(num_probes=0)


def test_exact_graphs_of_many_items_say_how_long_they_take(monkeypatch):
    data = HeteroData()
    data['item'].x_text = torch.randn(2000, 3)
    monkeypatch.setattr('motor_geo.utils.cost.SPEED', 1e3 / torch.get_num_threads())
    message = r"item graph of 2,000 items of 3 features takes about 1.7 hours .*; method='ivf'"
    with pytest.warns(UserWarning, match=message):
        ItemKNN(3, cache=False)(data)
