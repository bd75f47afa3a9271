from __future__ import annotations

import warnings

import numpy as np
import pytest

from motor_geo.data.datasets.table import TableDataset
from motor_geo.typing import RATES


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((40, 30)) < 0.25)
    rating = rng.integers(1, 6, len(user))
    event = np.array(['view', 'cart', 'buy'])[rng.integers(3, size=len(user))]
    lines = ['userID\titemID\trating\tevent']
    lines += [f'{u}\t{i}\t{r}\t{e}' for u, i, r, e in zip(user, item, rating, event)]
    (tmp_path / 'shop.inter').write_text('\n'.join(lines))
    return tmp_path, list(zip(user.tolist(), item.tolist(), rating.tolist(), event.tolist()))


def pairs(dataset):
    r"""Raw ids of the interactions of all splits."""
    found = [dataset[0][RATES].edge_index.numpy()]
    for split in ('val', 'test'):
        targets = dataset.targets(split)
        found.append(np.stack([targets.user.repeat_interleave(targets.count), targets.item]))
    user, item = np.concatenate(found, axis=1)
    return set(zip(dataset.user_ids[user].tolist(), dataset.item_ids[item].tolist()))


def test_ratings_and_events(folder):
    path, rows = folder
    dataset = TableDataset(path, min_rating=3, event=['buy', 'cart'])
    assert pairs(dataset) == {(u, i) for u, i, r, e in rows if r >= 3 and e != 'view'}
    assert dataset.known_items.all() and dataset.known_users.all()  # The others are gone.
    assert pairs(TableDataset(path, event='view')) == {(u, i) for u, i, _, e in rows if e == 'view'}
    for kwargs, message in (
        ({'event': ['click']}, r"'event' holds no \['click'\]; found the events \['buy', 'cart'"),
        ({'min_rating': 9}, 'no interaction is left with min_rating=9'),
        ({'min_rating': 1, 'rating': 'stars'}, "expected a column 'stars'"),
    ):
        with pytest.raises(ValueError, match=message):
            TableDataset(path, **kwargs)


def test_rows_of_features_stay(folder):
    path, rows = folder
    x = np.arange(60.0).reshape(30, 2)
    np.save(path / 'text_feat.npy', x)
    dataset = TableDataset(path, min_rating=5)
    assert dataset.num_items == 30 and dataset[0]['item'].x_text.tolist() == x.tolist()
    dataset = TableDataset(path, core=6)
    assert dataset[0]['item'].x_text.tolist() == x[dataset.item_ids].tolist()
    assert dataset.num_items < 30


def naive_core(rows, core):
    rows = set(rows)
    while True:
        users, items = ([pair[k] for pair in rows] for k in (0, 1))
        left = {(u, i) for u, i in rows if users.count(u) >= core and items.count(i) >= core}
        if left == rows:
            return rows
        rows = left


@pytest.mark.parametrize('core', [1, 4, 5, 6])
def test_core(folder, core):
    path, rows = folder
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # Repeated rows do not count.
        with open(path / 'shop.inter', 'a') as file:
            file.write('\n' + f'{rows[0][0]}\t{rows[0][1]}\t1\tview\n' * 9)
        dataset = TableDataset(path, core=core)
    assert pairs(dataset) == naive_core([row[:2] for row in rows], core)
    with pytest.raises(ValueError, match="'core' must be at least 1, got 0"):
        TableDataset(path, core=0)


def test_per_user(folder):
    path, rows = folder
    dataset = TableDataset(path, per_user=2.5, split='random', seed=1)
    kept = pairs(dataset)
    assert kept < {row[:2] for row in rows}
    users = {user for user, *_ in rows}
    assert {user for user, _ in kept} == users and len(kept) == round(2.5 * len(users))
    assert pairs(TableDataset(path, per_user=2.5, split='random', seed=2)) != kept
    columns = dict(zip(('userID', 'itemID'), np.array([row[:2] for row in rows]).T))
    frame = TableDataset.from_frame(columns, per_user=2.5, split='random', seed=1)
    assert pairs(frame) == kept
    with pytest.raises(ValueError, match="'per_user' must be at least 1, got 0.5"):
        TableDataset(path, per_user=0.5)
