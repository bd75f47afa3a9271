import warnings

import numpy as np
import pytest
import torch

from motor_geo.data.datasets.split import SPLITS
from motor_geo.data.datasets.synthetic_clusters import (
    SyntheticClusters,
)
from motor_geo.typing import RATED_BY, RATES

SMALL = dict(num_users=200, num_items=150, num_interactions=900)


@pytest.fixture(scope='module')
def dataset():
    return SyntheticClusters()


def all_pairs(dataset):
    pairs = [dataset[0][RATES].edge_index]
    for split in ('val', 'test'):
        targets = dataset.targets(split)
        user, item = targets.index
        pairs.append(torch.stack([targets.user[user], item]))
    return torch.cat(pairs, dim=1).numpy()


def test_contents(dataset):
    data = dataset[0]
    assert (dataset.num_users, dataset.num_items) == (2000, 1500)
    assert dataset.modalities == ['image', 'text']
    assert data['item'].x_image.shape == (1500, 128)
    assert data['item'].x_text.shape == (1500, 64)
    assert data['item'].x_text.dtype == torch.float32
    assert data[RATED_BY].edge_index.equal(data[RATES].edge_index.flip(0))
    user, item = all_pairs(dataset)
    assert len(np.unique(user * 1500 + item)) == len(user) == 9000
    assert np.bincount(user, minlength=2000).min() == 3
    assert str(dataset.user_ids[7]) == 'user_0007'
    assert str(dataset.item_ids[123]) == 'item_0123'
    assert str(dataset).startswith('SyntheticClusters(clusters, users=2000, items=1500, train=')


def test_popularity_has_a_long_tail(dataset):
    count = np.bincount(all_pairs(dataset)[1], minlength=1500)
    assert (count == 0).sum() >= 30  # 2 % without any interaction.
    head = np.sort(count)[::-1][:300].sum() / count.sum()
    assert 0.35 < head < 0.7  # Of a uniform choice, 20 % would have about 0.28.


def test_missing_images(dataset):
    item = dataset[0]['item']
    missing = ~item.mask_image
    assert int(missing.sum()) == 75
    mean = item.x_image[item.mask_image].double().mean(dim=0)
    assert torch.allclose(item.x_image[missing].double(), mean.expand(75, -1), atol=1e-6)
    assert 'mask_text' not in item


def test_content_predicts_preferences(dataset):
    # The mean content of a user's training items ranks the held-out ones.
    data, targets = dataset[0], dataset.targets('test')
    user, item = data[RATES].edge_index
    for modality in dataset.modalities:
        x = data['item'][f'x_{modality}'].double()
        x = torch.nn.functional.normalize(x - x.mean(dim=0), dim=1)
        profile = torch.zeros(2000, x.size(1), dtype=torch.double).index_add_(0, user, x[item])
        score = profile @ x.t()
        row, positive = targets.index
        positive_score = score[targets.user[row], positive]
        other = score[targets.user[row], torch.arange(len(row)) * 7919 % 1500]
        auc = (positive_score > other).double().mean()
        assert auc > 0.75, (modality, auc)


def test_preferences_are_shared():
    # Without affinity, users agree on popular items only.
    flat = SyntheticClusters(affinity=0.0)
    peaked = SyntheticClusters()

    def repeats(dataset):  # Pairs of users that share two items or more.
        user, item = all_pairs(dataset)
        rates = np.zeros((2000, 1500), np.float32)
        rates[user, item] = 1
        shared = rates @ rates.T
        return int((shared >= 2).sum()) - 2000

    assert repeats(peaked) > 3 * repeats(flat)


def test_deterministic():
    first, second = SyntheticClusters(**SMALL, seed=1), SyntheticClusters(**SMALL, seed=1)
    assert first.fingerprint == second.fingerprint
    assert SyntheticClusters(**SMALL, seed=2).fingerprint != first.fingerprint


def test_state_is_not_global():
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    SyntheticClusters(**SMALL)
    assert (np.random.get_state()[1] == state[0]).all()
    assert torch.get_rng_state().equal(state[1])


def test_features_do_not_change_interactions():
    first = SyntheticClusters(**SMALL)
    second = SyntheticClusters(**SMALL, image_channels=0, text_channels=8, noise=1.0)
    assert second.modalities == ['text']
    assert first[0][RATES].edge_index.equal(second[0][RATES].edge_index)
    assert SyntheticClusters(**SMALL, text_channels=0, image_channels=0).modalities == []


@pytest.mark.parametrize('split', sorted(SPLITS))
def test_splits(split):
    with warnings.catch_warnings():  # Users may have cold items only.
        warnings.filterwarnings('ignore', message='.*without a training interaction.*')
        dataset = SyntheticClusters(**SMALL, split=split)
    train = dataset[0][RATES].edge_index[1]
    for name in ('val', 'test'):
        targets = dataset.targets(name)
        if split == 'cold_item':
            assert not torch.isin(targets.item, train).any()
            assert torch.isin(targets.item, targets.candidates).all()
        else:
            assert targets.candidates is None
    if split == 'leave_one_out':
        assert (dataset.targets('test').count == 1).all()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'num_interactions': 599}, "'num_interactions' from 600 to 14600 .* got 599"),
        ({'num_interactions': 20_000}, "'num_interactions' from 600 to 14600 .* got 20000"),
        ({'num_users': 0}, "'num_users' to be at least 1, got 0"),
        ({'unseen_items': 1.0}, r"'unseen_items' in \[0, 1\), got 1.0"),
        ({'missing_images': -0.1}, r"'missing_images' in \[0, 1\), got -0.1"),
        ({'noise': -1.0}, "'noise' to be at least 0"),
        ({'split': 'rndom'}, "Unknown split 'rndom'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SyntheticClusters(**{**SMALL, **kwargs})
