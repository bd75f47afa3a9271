from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

from motor_geo.data.datasets.base import RecommendationDataset, unique_pairs
from motor_geo.typing import RATED_BY, RATES

USER = np.array([1, 0, 0, 1, 2, 0, 2, 2])
ITEM = np.array([0, 3, 1, 2, 0, 0, 1, 3])
LABEL = np.array([0, 0, 0, 2, 0, 1, 1, 2])


class Tiny(RecommendationDataset):
    def __init__(self, user=USER, item=ITEM, label=LABEL, features=None, **kwargs):
        if features is None:
            features = {'text': np.arange(8.0).reshape(4, 2), 'audio': torch.ones(4, 3)}
        ids = np.array(['a', 'b', 'c']), np.array([10, 11, 12, 13])
        rows = [np.array(values) for values in (user, item, label)]
        self._build('tiny', *rows, features, *ids, **kwargs)


class Wide(RecommendationDataset):
    r"""The same interactions; item 4 has features only, and item 5 nothing."""

    def __init__(self, **kwargs):
        ids = np.array(['a', 'b', 'c']), np.arange(6)
        self._build('wide', USER, ITEM, LABEL, user_ids=ids[0], item_ids=ids[1], **kwargs)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def test_graph():
    dataset = Tiny()
    assert str(dataset) == (
        'Tiny(tiny, users=3, items=4, train=4, val=2, test=2, modalities=[audio, text])'
    )
    assert len(dataset) == 1 and [data is dataset.data for data in dataset] == [True]
    with pytest.raises(IndexError, match='holds one graph'):
        dataset[1]
    data = dataset[0]
    assert data['user'].num_nodes == 3 and data['item'].num_nodes == 4
    assert data[RATES].edge_index.tolist() == [[0, 0, 1, 2], [1, 3, 0, 0]]
    assert data[RATED_BY].edge_index.tolist() == [[1, 3, 0, 0], [0, 0, 1, 2]]
    assert data[RATES].edge_index.dtype == torch.long
    assert data[RATES].edge_index.is_contiguous() and data[RATED_BY].edge_index.is_contiguous()
    assert data['item'].x_text.dtype == torch.float
    assert data['item'].x_text.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert data.validate()
    assert dataset.modalities == ['audio', 'text']
    assert dataset.user_ids[2] == 'c' and dataset.item_ids[3] == 13


def test_unseen_targets():
    dataset = Tiny()  # Item 2 has no training interaction; it is held out for testing.
    targets = dataset.unseen_targets('test')
    assert targets.user.tolist() == [1] and targets.item.tolist() == [2]
    assert targets.candidates.tolist() == [2]
    assert len(dataset.unseen_targets('val')) == 0
    # Neither items that do not exist nor those that are not ranked.
    features = {'text': np.ones((6, 2)), 'audio': np.ones((6, 3))}
    features['text'][5], features['audio'][5] = 0, 0
    for candidates, expected in ((None, [2, 4]), ([2, 3], [2]), ([0, 2, 3, 4], [2, 4])):
        dataset = Wide(
            features=features, candidates=candidates and {'val': None, 'test': np.array(candidates)}
        )
        assert dataset.unseen_targets('test').candidates.tolist() == expected
        assert dataset.unseen_targets('test').item.tolist() == [2]


def test_targets():
    dataset = Tiny()
    val, test = dataset.targets('val'), dataset.targets('test')
    assert (val.user.tolist(), val.ptr.tolist(), val.item.tolist()) == ([0, 2], [0, 1, 2], [0, 1])
    assert (test.user.tolist(), test.item.tolist()) == ([1, 2], [2, 3])
    assert val.candidates is None
    with pytest.raises(ValueError, match="Unknown split 'train'; expected 'val' or 'test'"):
        dataset.targets('train')
    candidates = {'val': np.array([0, 1]), 'test': np.array([2, 3])}
    dataset = Tiny(candidates=candidates)
    assert dataset.targets('val').candidates.tolist() == [0, 1]
    assert dataset.targets('test').candidates.tolist() == [2, 3]


def test_summary():
    assert Tiny().summary() == {
        'name': 'tiny',
        'users': 3,
        'items': 4,
        'train': 4,
        'val': 2,
        'test': 2,
        'density': 8 / 12,
        'interactions_per_user': 8 / 3,
        'items_without_training': 1,
        'modalities': {'audio': 3, 'text': 2},
    }


def test_fingerprint():
    base = Tiny().fingerprint
    order = np.random.default_rng(0).permutation(len(USER))
    assert Tiny(USER[order], ITEM[order], LABEL[order]).fingerprint == base
    others = {base}
    for change in (0, 5, 3):  # A training, a validation and a test row.
        item = ITEM.copy()
        item[change] = {0: 1, 5: 2, 3: 1}[change]
        others.add(Tiny(item=item).fingerprint)
    swapped = LABEL.copy()
    swapped[[5, 6, 3, 7]] = 2, 2, 1, 1
    others.add(Tiny(label=swapped).fingerprint)
    features = {'text': np.arange(8.0).reshape(4, 2), 'audio': torch.ones(4, 3)}
    others.add(Tiny(features={**features, 'audio': torch.full((4, 3), 1.5)}).fingerprint)
    others.add(Tiny(features={'text': features['text']}).fingerprint)
    others.add(Tiny(features={'text': features['audio'], 'audio': features['text']}).fingerprint)
    candidates = {'val': np.array([0, 1]), 'test': np.array([2, 3])}
    others.add(Tiny(candidates=candidates).fingerprint)
    assert len(others) == 9


def test_duplicates_stay_in_first_split():
    user, item = np.append(USER, [0, 0, 1]), np.append(ITEM, [1, 0, 0])
    label = np.append(LABEL, [0, 2, 1])  # Twice in train; in val and test; in train and val.
    with pytest.warns(UserWarning, match="'tiny': removed 3 duplicate .* among them row 8"):
        dataset = Tiny(user, item, label)
    assert dataset.fingerprint == Tiny().fingerprint
    with pytest.warns(UserWarning, match='removed 3 duplicate .* among them row 0'):
        dataset = Tiny(user[::-1], item[::-1], label[::-1])
    assert dataset.fingerprint == Tiny().fingerprint


def test_users_without_training_are_dropped():
    label = LABEL.copy()
    label[4] = 1  # User 2 has no training interaction any more.
    with pytest.warns(UserWarning, match='dropped 3 held-out interactions of 1 users'):
        dataset = Tiny(label=label)
    assert dataset.num_users == 3
    assert dataset.targets('val').user.tolist() == [0]
    assert dataset.targets('test').user.tolist() == [1]


@pytest.mark.parametrize('empty, name', [(0, 'train'), (1, 'val'), (2, 'test')])
@pytest.mark.filterwarnings('ignore:.*dropped')
def test_empty_split(empty, name):
    keep = LABEL != empty
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(ValueError, match=f"split 'random' leaves no .* {name}: it needs"):
            Tiny(USER[keep], ITEM[keep], LABEL[keep], rule='random')


def test_held_out_users_all_dropped():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(ValueError, match="'val' has no interactions.*training interaction"):
            Tiny([0, 1, 0], [0, 0, 1], [0, 1, 2])


def test_errors():
    for change, message in (
        (
            {'item': np.where(np.arange(8) == 5, 4, ITEM)},
            "row 5: expected 'item' from 0 to 3",
        ),
        (
            {'user': np.where(np.arange(8) == 2, -1, USER)},
            "row 2: expected 'user' from 0 to 2, got -1",
        ),
        ({'label': np.where(np.arange(8) == 7, 3, LABEL)}, "row 7: expected 'label' from 0 to 2"),
        ({'features': {'text': np.ones((3, 2))}}, r"Features 'text': expected 4 rows .* \[3, 2\]"),
        ({'features': {'text': np.ones(4)}}, r"Features 'text': expected 4 rows .* \[4\]"),
        ({'features': {'text': np.full((4, 1), 1e300)}}, "'text' as float32: row 0 holds"),
        ({'masks': {'text': np.zeros(4, bool)}}, "Mask 'text': expected at least one item"),
        ({'masks': {'text': np.zeros(3, bool)}}, r"Mask 'text': expected booleans \[4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Tiny(**change)


def test_missing_modality():
    mask = np.array([True, False, True, False])
    data = Tiny(masks={'text': mask})[0]
    assert data['item'].x_text.tolist() == [[0, 1], [2, 3], [4, 5], [2, 3]]
    assert data['item'].mask_text.tolist() == mask.tolist()
    assert 'mask_audio' not in data['item']
    full = np.arange(8, dtype=np.float32).reshape(4, 2)
    data = Tiny(features={'text': full}, masks={'text': np.ones(4, bool)})[0]
    assert data['item'].x_text.data_ptr() == full.ctypes.data


def test_float32_is_not_copied():
    x = np.ones((4, 2), np.float32)
    assert Tiny(features={'text': x})[0]['item'].x_text.data_ptr() == x.ctypes.data


def test_pickle():
    dataset = pickle.loads(pickle.dumps(Tiny()))
    assert dataset.fingerprint == Tiny().fingerprint


def test_unique_pairs():
    user, item = np.array([1, 0, 1, 0, 1]), np.array([2, 5, 2, 4, 2])
    assert unique_pairs(user, item).tolist() == [3, 1, 0]
    assert unique_pairs(user, item, np.array([2, 0, 1, 0, 1])).tolist() == [3, 1, 2]
