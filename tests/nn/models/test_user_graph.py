import torch

from motor_geo.nn.models import DualGNN
from motor_geo.nn.models.user_graph import UserGraph
from motor_geo.parallel import UserShard, World
from motor_geo.testing.graphs import prepare, small_graph
from motor_geo.typing import USER


def dense(edges, weight):
    return torch.zeros(edges.sparse_size()).index_put(tuple(edges.as_tensor()), weight, True)


def test_each_process_has_the_edges_of_its_own_users():
    data = prepare(DualGNN, small_graph())
    whole, parts = dense(*UserGraph()(data, torch.float)), []
    for rank in range(3):
        shard = UserShard(World(rank, 3), data)
        parts.append(dense(*UserGraph()(shard.cut(data), torch.float, shard)))
        assert parts[-1].size() == (data[USER].num_nodes, len(shard))
    assert torch.cat(parts, dim=1).equal(whole) and whole.count_nonzero() > 0
