import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.functional.distinct import distinct
from motor_geo.parallel import ShardError, TableShard, UserIndex, World


def test_an_index_only_selects_rows():
    shard = TableShard(World(), 211)
    table = torch.randn(len(shard), 3, requires_grad=True)
    user = torch.tensor([5, 1, 5])
    index = UserIndex.of(user, shard)
    x = table.index_select(0, index)
    assert type(x) is torch.Tensor and x.equal(table[user])
    x.sum().backward()
    assert table.grad[5].eq(2).all() and table.grad.sum() == 9
    assert index.numel() == len(index) == 3 and index.dtype == torch.long
    nodes = distinct(index)
    assert isinstance(nodes.node, UserIndex) and nodes.node.local.tolist() == [1, 5]
    assert type(nodes.inverse) is type(nodes.times) is torch.Tensor
    for wrong in (
        lambda: table[index],
        lambda: F.embedding(index, table),
        lambda: torch.cat([index, index]),
        lambda: index < 3,
        lambda: index + 1,
        lambda: index.bincount(),
    ):
        with pytest.raises(ShardError, match='needs all users on one process'):
            wrong()
    for other in (torch.randn(3, 3), torch.arange(len(shard))):
        with pytest.raises(ShardError, match='expected vectors of the 211 users'):
            other.index_select(0, index)
