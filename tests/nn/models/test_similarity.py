import torch

from motor_geo.nn.models.similarity import moment_distance
from motor_geo.parallel import UserShard, World
from motor_geo.testing.graphs import small_graph


def test_moments_of_users_and_items():
    torch.manual_seed(0)
    shard = UserShard(World(), small_graph())
    x = torch.randn(len(shard) + 9, 3, 4, dtype=torch.double)
    pairs = ((0, 1), (0, 2), (1, 2))
    expected = sum((x[:, a].mean() - x[:, b].mean()).abs() for a, b in pairs)
    expected += sum((x[:, a].var() - x[:, b].var()).abs() for a, b in pairs)
    torch.testing.assert_close(moment_distance(x), expected)
    torch.testing.assert_close(moment_distance(x, shard), expected)
