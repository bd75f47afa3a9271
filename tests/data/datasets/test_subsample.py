import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motor_geo.data.datasets.subsample import drop_modalities, thin_training, thin_users

PAIRS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2)),
    min_size=1,
    unique_by=lambda row: row[:2],
)


@given(PAIRS, st.floats(0.01, 1), st.floats(0.01, 1), st.randoms())
def test_thinning_is_nested_and_knows_no_order(rows, a, b, random):
    user, item, label = np.array(rows).T
    small, large = (thin_training(user, item, label, share, seed=3) for share in sorted((a, b)))
    assert (large >= small).all() and small[label > 0].all()
    train = (label == 0).sum()
    assert large[label == 0].sum() == min(train, max(1, round(max(a, b) * train)))
    order = np.array(random.sample(range(len(rows)), len(rows)))
    again = thin_training(user[order], item[order], label[order], min(a, b), seed=3)
    np.testing.assert_array_equal(again, small[order])


@given(PAIRS, st.floats(1, 9), st.floats(1, 9), st.randoms())
def test_every_user_keeps_a_pair(rows, a, b, random):
    user, item, _ = np.array(rows).T
    small, large = (thin_users(user, item, mean, seed=3) for mean in sorted((a, b)))
    users = np.unique(user)
    assert np.array_equal(np.unique(user[small]), users) and np.isin(small, large).all()
    assert len(large) == min(len(rows), round(max(a, b) * len(users)))
    order = np.array(random.sample(range(len(rows)), len(rows)))
    again = thin_users(user[order], item[order], min(a, b), seed=3)
    assert sorted(order[again]) == small.tolist()


def test_active_users_keep_more_pairs():
    user = np.repeat([0, 1], [10, 990])
    rows = thin_users(user, np.arange(1000), 50, seed=1)
    assert 0 < (user[rows] == 0).sum() < 5 and len(rows) == 100
    assert 30 < (rows < 505).sum() < 70  # At random.


def test_thinning_is_random():
    user, item = np.arange(1000), np.arange(1000)
    label = np.zeros(1000, int)
    first, second = (thin_training(user, item, label, 0.5, seed) for seed in (0, 1))
    assert 200 < (first & second).sum() < 300
    assert 200 < first[:500].sum() < 300


@given(st.integers(1, 50), st.integers(1, 3), st.floats(0, 1), st.floats(0, 1))
def test_items_lose_one_modality(num_items, count, a, b):
    names = ['audio', 'image', 'text'][:count]
    a, b = sorted((a, b))
    small, large = (drop_modalities(names, num_items, share, seed=1) for share in (a, b))
    lost = np.stack([~large[name] for name in names])
    assert lost.sum(axis=0).max() <= 1 and lost.sum() == round(b * num_items)
    assert all((small[name] >= large[name]).all() for name in names)


def test_items_lose_every_modality_equally_often_and_on_top_of_what_they_lack():
    masks = {'text': np.arange(1000) % 2 == 0}
    out = drop_modalities(['text', 'image'], 1000, 0.5, masks=masks)
    assert 200 < (~out['image']).sum() < 300
    assert not out['text'][1::2].any() and 100 < (~out['text'][::2]).sum() < 150
    assert masks['text'].sum() == 500  # As it was.
    assert out['text'].sum() == pytest.approx(375, abs=40)
