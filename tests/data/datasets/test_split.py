from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.data.datasets.split import SPLITS, cold_items, hold_out_items, split_interactions

# User n - 1 has n interactions, n = 1..25.
SIZES = np.arange(1, 26)


def distinct_pairs(rng, num_users=40, num_items=30, density=0.3):
    user, item = np.nonzero(rng.random((num_users, num_items)) < density)
    order = rng.permutation(len(user))
    return user[order], item[order]


def naive_sizes(n):
    if n == 1:
        return 1, 0, 0
    if n == 2:
        return 1, 0, 1
    if n < 10:
        return n - 2, 1, 1
    held = n // 5
    return n - held, held // 2, held - held // 2


def sizes(user, label):
    return [tuple(np.bincount(label[user == u], minlength=3)) for u in np.unique(user)]


def test_random_sizes():
    user = np.repeat(SIZES - 1, SIZES)
    # A shared pool of items keeps every item in training: nothing is moved.
    item = np.concatenate([np.arange(n) for n in SIZES])
    label = split_interactions(user, item, 'random', seed=3)
    assert label.dtype == np.int8
    moved = set(range(25)) - set(item[label == 0])
    assert not moved
    expected = [naive_sizes(n) for n in SIZES]
    got = sizes(user, label)
    # An item seen by few users may have moved one row to training.
    shifted = sum(g[0] - e[0] for g, e in zip(got, expected))
    assert 0 <= shifted <= 3
    assert sum(g == e for g, e in zip(got, expected)) >= 22
    assert got[14] in ((12, 1, 2), (13, 1, 1), (13, 0, 2))  # h = 3: the smaller half validates.


def test_random_moves_unseen_items_to_train():
    user = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    item = np.array([0, 1, 2, 3, 4, 5, 6, 7])  # No item occurs twice: all must be in training.
    for seed in range(5):
        assert (split_interactions(user, item, 'random', seed) == 0).all()
    user = np.repeat(np.arange(50), 3)
    item = np.where(np.arange(150) % 3 == 0, 10 + np.arange(150), np.arange(150) % 3)
    label = split_interactions(user, item, 'random', 0)
    private = item >= 10
    assert (label[private] == 0).all() and (label[~private] > 0).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SPLITS)), st.booleans())
def test_properties(seed, rule, timed):
    rng = np.random.default_rng(seed)
    user, item = distinct_pairs(rng, rng.integers(1, 12), rng.integers(1, 30), 0.4)
    timed = timed or rule in ('temporal', 'global_time')
    timestamp = rng.permutation(len(user)) if timed else None
    label = split_interactions(user, item, rule, seed, timestamp)
    assert label.shape == user.shape and label.dtype == np.int8
    assert np.isin(label, (0, 1, 2)).all()
    assert (label == split_interactions(user, item, rule, seed, timestamp)).all()
    perm = rng.permutation(len(user))
    again = split_interactions(
        user[perm], item[perm], rule, seed, None if timestamp is None else timestamp[perm]
    )
    assert (again == label[perm]).all()

    if rule == 'cold_item':
        kinds = [set(item[label == k]) for k in range(3)]
        assert not kinds[0] & kinds[1] and not kinds[0] & kinds[2] and not kinds[1] & kinds[2]
        val, test = cold_items(item, seed)
        assert kinds[1] == set(val) and kinds[2] == set(test)
        return
    if rule == 'global_time':
        assert (np.diff(label[np.argsort(timestamp)]) >= 0).all()
        n = len(user)
        assert [(label < 1).sum(), (label < 2).sum()] == [n * 8 // 10, n * 9 // 10]
        return
    assert set(user[label == 0]) == set(user)
    for u in np.unique(user):
        n, mine = int((user == u).sum()), label[user == u]
        counts = np.bincount(mine, minlength=3)
        if rule == 'temporal':
            assert tuple(counts) == naive_sizes(n)
        elif rule == 'leave_one_out':
            assert tuple(counts[1:]) == (int(n >= 3), int(n >= 2))
        else:
            expected = naive_sizes(n)
            assert counts[0] >= expected[0]
            assert counts[1] <= expected[1] and counts[2] <= expected[2]
        if timestamp is not None and rule != 'random':
            assert (np.diff(mine[np.argsort(timestamp[user == u])]) >= 0).all()
    if rule == 'random':
        assert set(item[label == 0]) == set(item)


def test_the_same_moment_stays_together():
    user, item = np.zeros(20, np.int64), np.arange(20)
    time = np.array([0.5] * 10 + [1.5] * 7 + [2.5] * 3)
    label = split_interactions(user, item, 'global_time', timestamp=time)
    # The cuts are at rows 16 and 18 of 20, in the middle of equal times.
    assert label.tolist() == [0] * 10 + [1] * 7 + [2] * 3


def test_seed_matters():
    user, item = distinct_pairs(np.random.default_rng(0))
    for rule in ('random', 'leave_one_out', 'cold_item'):
        first, second = (split_interactions(user, item, rule, seed) for seed in (0, 1))
        assert (first != second).any()


def test_random_is_uniform():
    user, item = np.nonzero(np.ones((400, 10)))
    label = split_interactions(user, item, 'random', 0)
    held = np.bincount(item[label == 2], minlength=10)
    assert held.sum() == 400 and held.min() > 15 and held.max() < 75


def test_temporal_by_hand():
    user = np.array([1, 0, 0, 0, 1, 0, 2])
    item = np.array([0, 1, 2, 3, 4, 5, 6])
    timestamp = np.array([9, 5, 1, 7, 2, 7, 0])  # The tie at 7 keeps the order of rows.
    label = split_interactions(user, item, 'temporal', timestamp=timestamp)
    assert label.tolist() == [2, 0, 0, 1, 0, 2, 0]
    label = split_interactions(user, item, 'leave_one_out', timestamp=timestamp)
    assert label.tolist() == [2, 0, 0, 1, 0, 2, 0]
    user, item = np.zeros(12, int), np.arange(12)
    label = split_interactions(user, item, 'temporal', timestamp=-item)
    assert label.tolist() == [2, 1] + [0] * 10
    label = split_interactions(user, item, 'temporal', timestamp=-item / 7)
    assert label.tolist() == [2, 1] + [0] * 10


def test_cold_items_fraction():
    val, test = cold_items(np.repeat(np.arange(100, 155), 3), seed=1)
    assert len(val) == 5 and len(test) == 6
    assert (np.diff(val) > 0).all() and (np.diff(test) > 0).all()
    assert val.min() >= 100 and not set(val) & set(test)


def test_errors():
    user = item = np.arange(3)
    with pytest.raises(ValueError, match="needs a column 'timestamp'"):
        split_interactions(user, item, 'temporal')
    with pytest.raises(ValueError, match="Unknown split 'chronological'; expected one of .*random"):
        split_interactions(user, item, 'chronological')
    with pytest.raises(ValueError, match="Expected 3 entries in 'timestamp', got 2"):
        split_interactions(user, item, 'random', timestamp=np.arange(2))


def test_no_loop_per_user():
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 50_000, 300_000), rng.integers(0, 20_000, 300_000)
    start = time.process_time()
    split_interactions(user, item, 'random')
    assert time.process_time() - start < 2


def test_held_out_items_leave_the_others_in_their_split():
    rng = np.random.default_rng(0)
    item, label = rng.integers(50, size=400), rng.integers(3, size=400).astype(np.int8)
    out = hold_out_items(item, label, 3, 0.2)
    val, test = cold_items(item, 3, 0.2)
    assert len(val) == len(test) == 5
    assert (out[np.isin(item, val)] == 1).all() and (out[np.isin(item, test)] == 2).all()
    rest = ~np.isin(item, [*val, *test])
    assert (out[rest] == label[rest]).all() and rest.sum() > 200
    assert (hold_out_items(item, label, 3, 0.0) == label).all()
