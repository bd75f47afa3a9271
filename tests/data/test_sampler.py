import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from motor_geo.data.sampler import BPRSampler, has_full_user
from motor_geo.parallel import UserShard
from motor_geo.typing import ITEM, RATES, USER, set_edges
from tests.parallel.threads import together

EDGES = torch.tensor([[0, 0, 0, 1, 1, 2, 4], [0, 2, 3, 2, 5, 0, 6]])  # Items 1, 4 are not in train.


def gather(sampler, epoch=0):
    return [torch.cat(part) for part in zip(*sampler.epoch(epoch))]


def test_sampler_epoch():
    sampler = BPRSampler(EDGES, num_users=5, num_items=8, batch_size=3, seed=1)
    assert str(sampler) == 'BPRSampler(7 interactions, batch_size=3, seed=1)'
    batches = list(sampler.epoch(0))
    assert len(sampler) == len(batches) == 3
    assert [batch.user.numel() for batch in batches] == [3, 3, 1]
    assert all(batch.neg.dtype == torch.long for batch in batches)

    user, pos, _ = gather(sampler)
    assert sorted(zip(user.tolist(), pos.tolist())) == sorted(map(tuple, EDGES.t().tolist()))
    assert len(BPRSampler(EDGES, 5, 8, batch_size=7)) == 1
    assert len(BPRSampler(EDGES, 5, 8, batch_size=6)) == 2


def test_sampler_negatives_are_exact_and_uniform():
    sampler = BPRSampler(EDGES, num_users=5, num_items=8, seed=0)
    free = {0: {5, 6}, 1: {0, 3, 6}, 2: {2, 3, 5, 6}, 4: {0, 2, 3, 5}}
    counts = {user: {} for user in free}
    for epoch in range(600):
        for user, _, neg in zip(*(part.tolist() for part in gather(sampler, epoch))):
            counts[user][neg] = counts[user].get(neg, 0) + 1
    for user, items in free.items():
        assert set(counts[user]) == items
        total, share = sum(counts[user].values()), 1 / len(items)
        for item in items:  # Six standard deviations.
            bound = 6 * (total * share * (1 - share)) ** 0.5
            assert abs(counts[user][item] - total * share) < bound


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 12), st.floats(0.05, 0.95))
def test_sampler_never_returns_a_positive_or_unseen_item(seed, num_users, num_items, density):
    rng = np.random.default_rng(seed)
    mask = rng.random((num_users, num_items)) < density
    seen = mask.any(axis=0)
    mask[mask[:, seen].all(axis=1)] = False  # A user with all items is an error.
    edge_index = torch.from_numpy(np.stack(mask.nonzero()))
    seen = mask.any(axis=0)
    if edge_index.size(1) == 0 or mask[:, seen].all(axis=1).any():
        return
    shuffled = edge_index[:, torch.from_numpy(rng.permutation(edge_index.size(1)))]
    user, pos, neg = gather(BPRSampler(shuffled, num_users, num_items, 4, seed))
    assert mask[user, pos].all()
    assert not mask[user, neg].any()
    assert seen[neg].all()


def test_sampler_draws_the_same_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    edge_index = torch.from_numpy(np.stack((rng.random((40, 30)) < 0.4).nonzero()))
    whole = gather(BPRSampler(edge_index, 40, 30, 64, seed=2))
    monkeypatch.setattr('motor_geo.data.sampler.BLOCK', 7)
    monkeypatch.setattr('motor_geo.data.sampler.GATHER', 150)
    blocks = gather(BPRSampler(edge_index, 40, 30, 64, seed=2))
    assert all(torch.equal(a, b) for a, b in zip(whole, blocks))


def test_batches_of_many_interactions_are_sorted(monkeypatch):
    data = EDGES, 5, 8
    usual = list(BPRSampler(*data, batch_size=4).epoch(1))
    monkeypatch.setattr('motor_geo.data.sampler.MANY_INTERACTIONS', 0)
    batches = list(BPRSampler(*data, batch_size=4).epoch(1))
    assert len(batches) == len(usual) > 1
    for batch, other in zip(batches, usual):
        assert bool((batch.user.diff() >= 0).all())
        pairs = (torch.stack(list(x)).t().tolist() for x in (batch, other))
        assert sorted(next(pairs)) == sorted(next(pairs))


def test_sampler_user_with_all_but_one_item():
    edge_index = torch.stack([torch.zeros(999, dtype=torch.long), torch.arange(999)])
    edge_index = torch.cat([edge_index, torch.tensor([[1], [999]])], dim=1)
    user, _, neg = gather(BPRSampler(edge_index, 2, 1000))
    assert neg[user == 0].unique().tolist() == [999]


def test_sampler_epochs_are_reproducible():
    sampler = BPRSampler(EDGES, 5, 8, seed=3)
    first, second = gather(sampler, 5), gather(sampler, 6)
    again = gather(BPRSampler(EDGES[:, torch.randperm(7)], 5, 8, seed=3), 5)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not all(torch.equal(a, b) for a, b in zip(first, second))
    other = gather(BPRSampler(EDGES, 5, 8, seed=4), 5)
    assert not all(torch.equal(a, b) for a, b in zip(first, other))

    state = torch.get_rng_state()
    gather(sampler, 7)
    assert torch.equal(state, torch.get_rng_state())


def test_sampler_keeps_duplicates():
    edge_index = torch.tensor([[0, 0, 1], [0, 0, 1]])
    user, pos, neg = gather(BPRSampler(edge_index, 2, 2))
    assert sorted(user.tolist()) == [0, 0, 1]
    assert torch.equal(neg, 1 - pos)


def test_sampler_without_negatives():
    edge_index = torch.tensor([[0, 0, 1], [0, 1, 1]])  # User 0 has every item.
    user, pos, neg = gather(BPRSampler(edge_index, 2, 2, negatives=False))
    assert sorted(zip(user.tolist(), pos.tolist())) == [(0, 0), (0, 1), (1, 1)]
    assert neg.numel() == 0


def test_sampler_of_inference_mode():
    with torch.inference_mode():
        sampler = BPRSampler(EDGES.clone(), 5, 8)
    expected = gather(BPRSampler(EDGES, 5, 8))
    weight = torch.ones(8, 2, requires_grad=True)
    for batch in sampler.epoch(0):
        assert not any(part.is_inference() for part in batch)
        weight.index_select(0, batch.neg).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(gather(sampler), expected))


def test_sampler_errors():
    with pytest.raises(ValueError, match='Every user interacted with all 2 items'):
        BPRSampler(torch.tensor([[0, 0, 1, 1], [0, 3, 0, 3]]), 2, 5)
    with pytest.raises(ValueError, match="'batch_size' must be at least 1, got 0"):
        BPRSampler(EDGES, 5, 8, batch_size=0)
    with pytest.raises(ValueError, match="'seed' must not be negative"):
        BPRSampler(EDGES, 5, 8, seed=-1)
    with pytest.raises(ValueError, match='at least one training interaction'):
        BPRSampler(EDGES[:, :0], 5, 8)
    with pytest.raises(ValueError, match='holds user 4, expected indices from 0 to 3'):
        BPRSampler(EDGES, 4, 8)
    with pytest.raises(ValueError, match='holds item 6, expected indices from 0 to 5'):
        BPRSampler(EDGES, 5, 6)
    with pytest.raises(ValueError, match='holds user -1'):
        BPRSampler(EDGES - 1, 5, 8)


def test_sampler_leaves_users_with_all_items_out():
    edge_index = torch.tensor([[0, 1, 1, 1, 2, 2], [4, 0, 2, 4, 0, 2]])
    with pytest.warns(UserWarning, match='^User 1 interacted with all 3 items'):
        sampler = BPRSampler(edge_index, 3, 5, seed=2)
    user, pos, neg = gather(sampler)
    assert sorted(zip(user.tolist(), pos.tolist())) == [(0, 4), (2, 0), (2, 2)]
    assert neg[user == 2].tolist() == [4, 4] and set(neg[user == 0].tolist()) <= {0, 2}
    with pytest.warns(UserWarning, match='^User crawler interacted'):
        BPRSampler(edge_index, 3, 5, user_names=np.array(['ann', 'crawler', 'bob']))
    full = torch.arange(8).repeat_interleave(2), torch.tensor([0, 1]).repeat(8)
    edge_index = torch.cat([torch.stack(full), torch.tensor([[8], [1]])], dim=1)
    with pytest.warns(UserWarning, match='^Users 0, 1, 2, 3, 4 and 3 more interacted') as record:
        assert len(BPRSampler(edge_index, 9, 2, batch_size=1)) == 1
    assert len(record) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_sampler_cuda():
    sampler = BPRSampler(EDGES.cuda(), 5, 8, batch_size=3)
    first, again = gather(sampler, 1), gather(sampler, 1)
    assert all(part.is_cuda for part in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    user, _, neg = (part.cpu() for part in first)
    free = {0: {5, 6}, 1: {0, 3, 6}, 2: {2, 3, 5, 6}, 4: {0, 2, 3, 5}}
    assert all(int(j) in free[int(u)] for u, j in zip(user, neg))


def batches_of(sampler, epochs):
    return [[torch.cat(x) for x in zip(*sampler.epoch(epoch))] for epoch in range(epochs)]


def several(edge_index, sizes, bounds, full=False, **options):
    r"""Batches of one process, and of each of several."""
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = sizes
    set_edges(data, edge_index)

    def call(world):
        shard = UserShard(world, data, bounds=bounds)
        own = shard.cut(data)[RATES].edge_index
        args = own, len(shard), sizes[1]
        sampler = BPRSampler(*args, shard=shard, **options)
        assert has_full_user(*args, shard) is has_full_user(edge_index, *sizes) is full
        assert sampler.user.numel() <= own.size(1)
        return str(sampler), len(sampler), batches_of(sampler, 3)

    one = BPRSampler(edge_index, *sizes, **options)
    found = together(len(bounds) - 1, call)
    return (str(one), len(one), batches_of(one, 3)), found


@pytest.mark.parametrize('negatives', [True, False])
@pytest.mark.parametrize('bounds', [[0, 30, 40, 80], [0, 5, 5, 80], [0, 0, 80], [0, 78, 80]])
def test_processes_yield_the_batches_of_one(monkeypatch, negatives, bounds):
    monkeypatch.setattr('motor_geo.data.sampler.BLOCK', 100)
    monkeypatch.setattr('motor_geo.data.sampler.GATHER', 64)
    rng = np.random.default_rng(0)
    mask = rng.random((80, 37)) < rng.random((80, 1)) * 0.6
    mask[5:9] = mask[:, 9] = False  # Users and an item without interactions.
    edge_index = torch.from_numpy(np.stack(mask.nonzero()))
    edge_index = edge_index[:, torch.from_numpy(rng.permutation(edge_index.size(1)))]
    edge_index = torch.cat([edge_index, edge_index[:, :4]], dim=1)  # Repeated interactions.
    edge_index = edge_index[:, edge_index[0].argsort(stable=True)]
    options = {'batch_size': 23, 'seed': 3, 'negatives': negatives}
    one, found = several(edge_index, mask.shape, bounds, **options)
    for text, size, batches in found:
        assert (text, size) == one[:2]
        for epoch, expected in zip(batches, one[2]):
            assert all(x.dtype == torch.long and x.equal(y) for x, y in zip(epoch, expected))
            assert epoch[2].numel() == (epoch[0].numel() if negatives else 0)


def test_users_with_all_items_on_several_processes():
    mask = np.zeros((9, 5), bool)
    mask[[0, 4, 8]] = True
    mask[[1, 5], [0, 3]] = True
    mask[:, 2] = False  # Nobody has it, so three users have all items.
    edge_index = torch.from_numpy(np.stack(mask.nonzero()))
    names = [f'u{i}' for i in range(9)]
    options = {'batch_size': 2, 'user_names': names}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        one, found = several(edge_index, mask.shape, [0, 3, 9], True, **options)
    texts = {str(entry.message) for entry in caught}
    assert len(caught) == 3 and len(texts) == 1 and 'Users u0, u4, u8 interacted' in texts.pop()
    for text, size, batches in found:
        assert (text, size) == one[:2] == ('BPRSampler(2 interactions, batch_size=2, seed=0)', 1)
        assert all(torch.stack(x).equal(torch.stack(y)) for x, y in zip(batches, one[2]))
    with pytest.raises(ValueError, match='Every user interacted with all 4 items'):
        several(edge_index[:, edge_index[0] % 4 == 0], mask.shape, [0, 3, 9])
