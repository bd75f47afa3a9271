import pytest
import torch

from motor_geo.parallel import UserShard, World
from motor_geo.parallel.edge_part import edge_parts
from motor_geo.testing.graphs import small_graph
from motor_geo.typing import RATES, with_edges


def test_edges_of_successive_users():
    edge_index = torch.tensor([[0, 0, 2, 2, 3], [4, 1, 0, 3, 2]])
    part = edge_parts(edge_index)
    for first, last, start, end in ((0, 2, 0, 2), (1, 3, 2, 4), (3, 4, 4, 5), (4, 4, 5, 5)):
        found = part(first, last)
        assert found.edge_index.equal(edge_index[:, start:end])
        assert (found.start, found.num_edges) == (start, 5)


def test_interactions_are_sorted_by_user():
    data = small_graph()
    other = with_edges(data, data[RATES].edge_index.flip(1))
    with pytest.raises(ValueError, match='share interactions that are sorted by user, got others'):
        UserShard(World(0, 2), other)
