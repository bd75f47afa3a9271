import pytest
import torch

from motor_geo.nn.models.pruned import PrunedRecommender
from motor_geo.nn.pruning import degree_sensitive_pruning, uniform_pruning
from motor_geo.testing.graphs import small_graph
from motor_geo.typing import RATES


class Model(PrunedRecommender):
    def is_uniform(self, epoch):
        return epoch == 1


def generator():
    return torch.Generator().manual_seed(0)


def test_begin_epoch():
    data = small_graph()
    model = Model(data, None, 8, rho=0.3)
    assert model.training_graph(data) is model.graph(data)
    edge_index, num_users, num_items, _ = model.graph_args(data)
    for epoch, keep in enumerate(
        [
            degree_sensitive_pruning(edge_index, num_users, num_items, 0.3, generator()),
            uniform_pruning(edge_index, 0.3, generator()),
        ]
    ):
        model.begin_epoch(data, epoch, generator())
        pruned = model.training_graph(data).to_item.as_tensor()
        assert set(zip(*pruned.tolist())) == set(zip(*edge_index[:, keep].tolist()))
    data[RATES].edge_index = edge_index.clone()
    assert model.training_graph(data) is model.graph(data)


def test_without_pruning():
    data = small_graph()
    model = Model(data, None, 8, rho=0)
    model.begin_epoch(data, 0, generator())
    assert model.training_graph(data) is model.graph(data)
    with pytest.raises(ValueError, match=r"'rho' must lie in \[0, 1\) \(got 1\)"):
        Model(data, None, 8, rho=1)
