import pytest
import torch

from motor_geo.engine import Trainer
from motor_geo.nn.models import LightGCN
from motor_geo.parallel import EdgePart, UserShard, World
from motor_geo.parallel.user_shard import shard_of_batch
from motor_geo.testing.graphs import random_batch, small_graph
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
    monkeypatch.setattr('motor_geo.parallel.user_shard.BLOCK', 100)
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


def test_the_users_of_a_batch():
    data = small_graph()
    shard, batch = UserShard(World(1, 2), data), random_batch(data, 8)
    assert shard_of_batch(batch) is None and shard_of_batch(shard.batch(batch)) is shard


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
