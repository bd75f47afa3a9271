import copy

import pytest
import torch

from motor_geo.nn.models import BPR, LightGCN
from motor_geo.parallel import ShardError, TableShard, UserShard, World
from motor_geo.testing.graphs import small_graph
from motor_geo.typing import USER


@pytest.mark.parametrize('bounds', [[0, 211], [0, 212, 211], [1, 5, 211], [0, 5, 210]])
def test_bounds_cover_all_users_in_order(bounds):
    assert TableShard(World(1, 2), 211).bounds == [0, 106, 211]
    with pytest.raises(ValueError, match="'bounds' must be 3 ascending numbers from 0 to 211, got"):
        TableShard(World(1, 2), 211, bounds)


def test_rows_of_a_table():
    data = small_graph()
    shard = TableShard(World(1, 2), data[USER].num_nodes)
    model = BPR(data, channels=4)
    table = model.user_embedding.detach().clone()
    names = [name for name, _ in model.named_parameters()]
    shard.cut_model(model, model.user_tables(), model.column_tables())
    assert model.user_embedding.equal(table[shard.first : shard.last])
    assert [name for name, _ in model.named_parameters()] == names  # In the same order.


def test_columns_of_a_table():
    data = small_graph()
    shards = [UserShard(World(i, 2, None, World(i, 2), World()), data) for i in range(2)]
    model = LightGCN(data, channels=4)
    user, item = model.user_embedding.detach(), model.item_encoder.weight.detach()
    for i, shard in enumerate(shards):
        part = copy.deepcopy(model)
        shard.cut_model(part, part.user_tables(), part.column_tables())
        columns = slice(2 * i, 2 * i + 2)
        assert (
            part.user_embedding.equal(user[:, columns]) and part(shard.cut(data)).item.size(1) == 2
        )
        assert part.item_encoder.weight.equal(item[:, columns])
        assert len(shard) == 211 and shard.own_columns(user).is_contiguous()
    assert [(shard.ranked.first, shard.ranked.last) for shard in shards] == [(0, 106), (106, 211)]
    with pytest.raises(ShardError, match='2 processes cannot share 3 columns; expected a multiple'):
        shards[0].own_columns(torch.ones(4, 3))
    whole, scale = UserShard(World(), data), torch.ones(211)
    assert whole.collect(scale, True, True) is scale and whole.own_columns(user) is user
