import copy

import pytest
import torch
import torch.nn.functional as F

from motor_geo.engine import Trainer
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.models import BPR, LightGCN, Recommender
from motor_geo.parallel import ShardError, UserIndex, UserShard, World
from motor_geo.parallel.users import EdgePart
from motor_geo.pipeline.processes import needs_all_users, on_processes
from motor_geo.testing.graphs import small_graph
from motor_geo.typing import RATED_BY, RATES, USER, LazyEdges, unread_edges, with_edges
from motor_geo.utils.cache import fingerprint
from tests.parallel.threads import together


@pytest.mark.parametrize('size', [1, 2, 3, 7, 300])
def test_every_user_is_on_one_process(size):
    data = small_graph()
    shards = [UserShard(World(rank, size), data) for rank in range(size)]
    users = [user for shard in shards for user in range(shard.first, shard.last)]
    assert users == list(range(data[USER].num_nodes))
    edges = torch.arange(data[RATES].edge_index.size(1))
    assert torch.cat([edges[shard.edges] for shard in shards]).equal(edges)
    for shard in shards:
        cut = shard.cut(data)
        user, item = data[RATES].edge_index[:, shard.edges]
        assert shard.num_edges == edges.numel() and shard.edge_index.equal(
            torch.stack([user, item])
        )
        assert cut[RATES].edge_index.equal(torch.stack([user - shard.first, item]))
        assert cut[RATED_BY].edge_index.equal(cut[RATES].edge_index.flip(0))
        assert cut[USER].num_nodes == len(shard) and cut[RATES].shard is shard
    assert 'shard' not in data[RATES] and data[USER].num_nodes == len(users)


def test_all_interactions_from_those_of_each_process(monkeypatch):
    monkeypatch.setattr('motor_geo.parallel.users.BLOCK', 100)
    data = small_graph()
    edge_index = data[RATES].edge_index

    def call(world):
        shard = UserShard(world, data, bounds=[0, 20, 20, data[USER].num_nodes])
        whole = shard.whole(shard.cut(data))
        hashes = [fingerprint(unread_edges(whole[kind])) for kind in (RATES, RATED_BY)]
        return hashes, whole[RATES].edge_index, whole[RATED_BY].edge_index

    for hashes, there, back in together(3, call):
        assert there.equal(edge_index) and back.equal(edge_index.flip(0))
        assert hashes == [fingerprint(there), fingerprint(back)]


def test_interactions_are_sorted_by_user():
    data = small_graph()
    other = with_edges(data, data[RATES].edge_index.flip(1))
    with pytest.raises(ValueError, match='share interactions that are sorted by user, got others'):
        UserShard(World(0, 2), other)


def test_interactions_of_a_process_are_read():
    data = small_graph()
    edge_index, asked = data[RATES].edge_index, []

    def part(first, last):
        asked.append((first, last))
        start, end = torch.searchsorted(edge_index[0].contiguous(), torch.tensor([first, last]))
        return EdgePart(edge_index[:, start:end], int(start), edge_index.size(1))

    def failing(side):
        raise AssertionError

    lazy = with_edges(data, LazyEdges(edge_index.size(1), failing))
    found, expected = UserShard(World(1, 2), lazy, part=part), UserShard(World(1, 2), data)
    assert asked == [(expected.first, expected.last)] and found.edges == expected.edges
    assert found.edge_index.equal(expected.edge_index) and found.num_edges == expected.num_edges
    cut = found.cut(lazy)[RATES].edge_index
    assert cut.equal(expected.cut(data)[RATES].edge_index)


def test_rows_of_a_table():
    data = small_graph()
    shard = UserShard(World(1, 2), data)
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


def test_an_index_only_selects_rows():
    data = small_graph()
    shard = UserShard(World(), data)
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


def test_a_world_of_one_has_the_same_bits():
    data = small_graph()

    def train(shard):
        torch.manual_seed(0)
        model, graph = LightGCN(data, channels=8), data
        if shard:
            part = UserShard(World(), data)
            part.cut_model(model, model.user_tables())
            graph = part.cut(data)
        Trainer(model, graph, epochs=2, batch_size=256, progress=False).fit()
        return model.state_dict()

    with World.start({}) as world:
        assert world.size == 1 and world.share({'a': 1}) == {'a': 1} and not world.agree(False)
        with world.in_turn():
            world.barrier()
    one, same = train(False), train(True)
    for key, value in one.items():
        torch.testing.assert_close(value, same[key], rtol=0, atol=1e-7)


def test_the_batch_size_follows_from_all_interactions(monkeypatch):
    monkeypatch.setattr('motor_geo.engine.batch_size.USUAL', 1)
    data = small_graph()
    one = Trainer(BPR(data, channels=4), data, batch_size='auto', progress=False)

    def call(world):
        shard, model = UserShard(world, data, bounds=[0, 20, 211]), BPR(data, channels=4)
        shard.cut_model(model, model.user_tables())
        return Trainer(model, shard.cut(data), batch_size='auto', progress=False)

    for trainer in together(2, call):
        assert trainer.sampler.batch_size == one.sampler.batch_size == 16
        assert trainer.lr == one.lr


def test_a_subclass_declares_for_itself():
    class Own(LightGCN):
        pass

    assert needs_all_users(LightGCN) is None and {'LightGCN', 'FREEDOM'} <= set(on_processes())
    assert needs_all_users(Own) == Recommender.needs_all_users == 'all users'
