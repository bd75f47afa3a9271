import time
import warnings

import numpy as np
import pytest
import torch

from motor_geo.data import DATASETS, SyntheticClusters
from motor_geo.data.datasets.split import SPLITS
from motor_geo.data.datasets.synthetic import SyntheticMultimodal, item_tastes
from motor_geo.data.datasets.synthetic_catalog import ATTRIBUTES, draw_attributes
from motor_geo.data.encoders import hashed_ngrams, image_statistics
from motor_geo.typing import RATED_BY, RATES

SMALL = dict(num_users=200, num_items=150, num_interactions=1800)


@pytest.fixture(scope='module')
def dataset():
    return SyntheticMultimodal()


def pairs_of(dataset, split):
    targets = dataset.targets(split)
    user, item = targets.index
    return torch.stack([targets.user[user], item])


def all_pairs(dataset):
    pairs = [dataset[0][RATES].edge_index, pairs_of(dataset, 'val'), pairs_of(dataset, 'test')]
    return torch.cat(pairs, dim=1).numpy()


def test_contents(dataset):
    data = dataset[0]
    assert (dataset.num_users, dataset.num_items) == (2000, 1500)
    assert dataset.modalities == ['image', 'text']
    assert data['item'].x_image.shape == (1500, 128)
    assert data['item'].x_text.shape == (1500, 64)
    assert data[RATED_BY].edge_index.equal(data[RATES].edge_index.flip(0))
    user, item = all_pairs(dataset)
    assert len(np.unique(user * 1500 + item)) == len(user) == 20_000
    assert np.bincount(user, minlength=2000).min() == 3
    assert str(dataset).startswith('SyntheticMultimodal(synthetic, users=2000, items=1500, train=')
    assert (
        DATASETS['synthetic'] is SyntheticMultimodal and DATASETS['clusters'] is SyntheticClusters
    )


def test_features_are_computed_from_titles_and_pictures(dataset):
    item = dataset[0]['item']
    assert item.x_text.equal(torch.from_numpy(hashed_ngrams(dataset.item_titles, 64)))
    x = torch.from_numpy(image_statistics(dataset.item_images))
    assert item.x_image[item.mask_image].equal(x[item.mask_image])
    missing = ~item.mask_image
    assert int(missing.sum()) == 150 and 'mask_text' not in item
    assert not dataset.item_images[missing.numpy()].any()
    assert dataset.item_images[item.mask_image.numpy()].any(axis=(1, 2, 3)).all()


def test_new_items_arrive_after_training(dataset):
    new = dataset.new_items
    assert new.dtype == torch.bool and int(new.sum()) == 300
    assert not new[dataset[0][RATES].edge_index[1]].any()
    for split in ('val', 'test'):
        share = new[pairs_of(dataset, split)[1]].double().mean()
        assert 0.2 < share < 0.3
    assert not SyntheticMultimodal(**SMALL, new_items=0.0).new_items.any()


def test_demand_has_a_long_tail(dataset):
    count = np.sort(np.bincount(all_pairs(dataset)[1], minlength=1500))[::-1]
    assert 0.11 < count[:15].sum() / 20_000 < 0.14
    assert 0.57 < count[:300].sum() / 20_000 < 0.70


@pytest.mark.parametrize('share', [0.0, 0.75, 1.0])
def test_share_of_combinations(share):
    # A least-squares fit on single attributes explains 1 - c of the variance of taste.
    attributes = draw_attributes(np.random.default_rng(0), 1500)
    x = item_tastes(np.random.default_rng(1), attributes, share, 16)
    assert (x**2).sum(axis=1).mean() == pytest.approx(1, abs=0.05)
    one_hot = [np.eye(len(v))[code] for v, code in zip(ATTRIBUTES.values(), attributes.T)]
    design = np.concatenate(one_hot, axis=1)
    fit = design @ np.linalg.lstsq(design, x, rcond=None)[0]
    assert (fit**2).sum() / (x**2).sum() == pytest.approx(1 - share, abs=0.05)
    # What is left is a function of the attributes other than the brand, so that it is equal
    # for equal items.
    rest = x - fit
    alike = attributes[:, None, :4] == attributes[None, :, :4]
    one, other = np.nonzero(np.triu(alike.all(axis=2), 1))
    assert len(one) > 50
    assert (rest[one] * rest[other]).sum() / (rest[one] ** 2).sum() > 0.7 or share == 0.0


def test_one_pair_of_attributes_by_hand():
    # Red and blue sneakers and shirts: the part without single attributes is a checkerboard.
    attributes = np.zeros((4, 5), int)
    attributes[:, 0], attributes[:, 1] = [0, 0, 1, 1], [0, 1, 0, 1]
    x = item_tastes(np.random.default_rng(0), attributes, 1.0, 3)
    assert np.allclose(x[0], -x[1]) and np.allclose(x[0], -x[2]) and np.allclose(x[0], x[3])
    assert (x[0] ** 2).sum() == pytest.approx(1)
    x = item_tastes(np.random.default_rng(0), attributes, 0.0, 3)
    assert np.allclose(x[0] + x[3], x[1] + x[2]) and not np.allclose(x[0], x[3])


def test_taste_shows_in_purchases():
    # Two purchases of a customer share kind and color more often than by chance.
    def shared(dataset):
        user, item = all_pairs(dataset)
        attributes = draw_attributes(np.random.default_rng([0, 0]), 1500)  # Of the same stream.
        order = np.argsort(user, kind='stable')
        user, code = user[order], attributes[item[order]]
        same = user[1:] == user[:-1]
        both = (code[1:, :2] == code[:-1, :2]).all(axis=1)
        return both[same].mean()

    flat = SyntheticMultimodal(affinity=0.0)
    assert flat.item_titles.tolist() == SyntheticMultimodal().item_titles.tolist()
    assert shared(SyntheticMultimodal()) > 2 * shared(flat)


def test_held_out_items_are_drawn_from_all_that_are_left():
    # Without taste and popularity, every item but those of training is as likely.
    dataset = SyntheticMultimodal(
        2000, 40, 20_000, affinity=0.0, popularity=0.0, new_items=0.5, missing_images=0.0
    )
    new = dataset.new_items
    held_out = torch.cat([pairs_of(dataset, 'val'), pairs_of(dataset, 'test')], dim=1)
    train = torch.bincount(dataset[0][RATES].edge_index[0], minlength=2000)
    expected = (20 / (40 - train[held_out[0]].double())).mean()
    assert new[held_out[1]].double().mean() == pytest.approx(float(expected), abs=0.03)


def test_deterministic():
    first, second = SyntheticMultimodal(**SMALL, seed=1), SyntheticMultimodal(**SMALL, seed=1)
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.item_images, second.item_images)
    assert SyntheticMultimodal(**SMALL, seed=2).fingerprint != first.fingerprint


def test_state_is_not_global():
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    SyntheticMultimodal(**SMALL)
    assert (np.random.get_state()[1] == state[0]).all()
    assert torch.get_rng_state().equal(state[1])


def test_parts_do_not_change_each_other():
    first = SyntheticMultimodal(**SMALL)
    wide = SyntheticMultimodal(**SMALL, text_channels=8)
    assert first[0][RATES].edge_index.equal(wide[0][RATES].edge_index)
    linear = SyntheticMultimodal(**SMALL, combinations=0.0)
    assert first[0]['item'].x_image.equal(linear[0]['item'].x_image)
    assert not first[0][RATES].edge_index.equal(linear[0][RATES].edge_index)


def test_generation_takes_little_time():
    start = time.process_time()
    SyntheticMultimodal()
    assert time.process_time() - start < 3  # About 0.4 s.


@pytest.mark.parametrize('split', sorted(SPLITS))
def test_splits(split):
    with warnings.catch_warnings():  # Users may have cold items only.
        warnings.filterwarnings('ignore', message='.*without a training interaction.*')
        dataset = SyntheticMultimodal(**SMALL, split=split)
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
    if split in ('temporal', 'global_time'):  # The season begins at one moment for everybody.
        assert dataset.new_items[train].double().mean() < 0.02


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'num_interactions': 599}, "'num_interactions' from 600 to 12000 .* got 599"),
        ({'num_interactions': 20_000}, "'num_interactions' from 600 to 12000 .* got 20000"),
        ({'num_users': 0}, "'num_users' to be at least 1, got 0"),
        ({'new_items': 1.0}, r"'new_items' in \[0, 1\), got 1.0"),
        ({'missing_images': -0.1}, r"'missing_images' in \[0, 1\), got -0.1"),
        ({'combinations': 1.1}, r"'combinations' in \[0, 1\], got 1.1"),
        ({'text_channels': 0}, "'text_channels' to be at least 1"),
        ({'split': 'rndom'}, "Unknown split 'rndom'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SyntheticMultimodal(**{**SMALL, **kwargs})
