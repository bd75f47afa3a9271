import copy

import numpy as np
import pytest
import torch
import torch_geometric
from torch_geometric.data import Data, HeteroData

from motor_geo.data import InteractionSVD, OPQTokenizer, SyntheticClusters
from motor_geo.data.datasets.base import RecommendationDataset
from motor_geo.data.transforms.add_items import add_items
from motor_geo.typing import ITEM, RATED_BY, RATES, USER

pytest.importorskip('scipy')


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_geometric, 'get_home_dir', lambda: str(tmp_path / 'home'))


def make_data(pairs, num_users, num_items, **features):
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
    data[RATES].edge_index = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t()
    data[RATED_BY].edge_index = data[RATES].edge_index.flip(0)
    for name, x in features.items():
        data[ITEM][f'x_{name}'] = x
    return data


def random_data(num_users=30, num_items=20, cold=0, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    dense = rng.random((num_users, num_items)) < 0.3
    dense[:, num_items - cold :] = False
    return make_data(np.argwhere(dense), num_users, num_items, **kwargs), dense.astype(float)


def transform(channels=5, **kwargs):
    return InteractionSVD(channels, **{'cache': False, **kwargs})


def normalized(dense, smoothing):
    user, item = dense.sum(axis=1), dense.sum(axis=0)
    user = user + smoothing * user[user > 0].mean()
    item = item + smoothing * item[item > 0].mean()
    product = np.outer(user, item)
    return dense / np.sqrt(np.where(dense > 0, product, 1))


@pytest.mark.parametrize('smoothing', [0.0, 1.0, 2.5])
@pytest.mark.parametrize('power', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('size', [(30, 20), (15, 25)])
def test_equals_dense_decomposition(size, power, smoothing):
    data, dense = random_data(*size)
    x = transform(power=power, smoothing=smoothing)(data)[ITEM].x_behavior
    assert x.dtype == torch.float and x.shape == (size[1], 5)
    _, value, vector = np.linalg.svd(normalized(dense, smoothing))
    expected = vector[:5].T * value[:5] ** power
    sign = np.sign((expected * x.numpy()).sum(axis=0))
    assert np.allclose(x, expected * sign, atol=1e-5)
    # Orthogonal, of lengths S^p, largest first, the largest entry positive.
    gram = x.double().t() @ x.double()
    assert torch.allclose(gram, torch.tensor(np.diag(value[:5] ** (2 * power))), atol=1e-5)
    assert bool((x.gather(0, x.abs().argmax(dim=0, keepdim=True)) > 0).all())
    if smoothing == 0:
        assert value[0] == pytest.approx(1)


def test_determinism():
    data, _ = random_data()
    first = transform(seed=3)(data)[ITEM].x_behavior
    assert torch.equal(first, transform(seed=3)(data)[ITEM].x_behavior)
    # Neither order nor copies of edges matter, nor does the seed beyond rounding.
    other = data.clone()
    edge_index = data[RATES].edge_index
    other[RATES].edge_index = torch.cat([edge_index, edge_index[:, :7]], dim=1).flip(1)
    assert torch.equal(first, transform(seed=3)(other)[ITEM].x_behavior)
    assert torch.allclose(first, transform(seed=4)(data)[ITEM].x_behavior, atol=1e-5)


def test_cache(monkeypatch):
    data, _ = random_data()
    first = transform(cache=True)(data)[ITEM].x_behavior
    monkeypatch.setattr(InteractionSVD, '_svd', None)
    assert torch.equal(first, transform(cache=True)(data)[ITEM].x_behavior)
    # Applied to what was cached: these settings need no other decomposition.
    assert not torch.equal(first, transform(cache=True, power=0.5)(data)[ITEM].x_behavior)
    for other in ({'channels': 4}, {'smoothing': 0.5}, {'seed': 1}):
        with pytest.raises(TypeError):
            transform(cache=True, **other)(data)


def test_graph_is_left_alone():
    data, _ = random_data(cold=2, text=torch.randn(20, 4), image=torch.randn(20, 6))
    data[ITEM].mask_image = torch.arange(20) > 2
    before = copy.deepcopy(data)
    out = transform()(data)
    assert data.to_dict().keys() == before.to_dict().keys()
    assert set(data[ITEM].keys()) == set(before[ITEM].keys())
    added = {'x_behavior', 'mask_behavior'}
    assert set(out[ITEM].keys()) == set(before[ITEM].keys()) | added
    for store, old in zip(out.stores, before.stores):
        for key, value in old.items():
            assert torch.equal(torch.as_tensor(store[key]), torch.as_tensor(value))
    assert out[ITEM].mask_behavior.tolist() == [True] * 18 + [False] * 2

    named = transform(modality='users')(data)
    assert (
        torch.equal(named[ITEM].x_users, out[ITEM].x_behavior) and 'x_behavior' not in named[ITEM]
    )
    again = transform()(out)  # Its own vectors are no content.
    assert torch.equal(again[ITEM].x_behavior, out[ITEM].x_behavior)


class Toy(RecommendationDataset):
    def __init__(self, user, item, label, features):
        self._build('toy', user, item, label, features, np.arange(12), np.arange(10))


@pytest.mark.filterwarnings('ignore:.*removed 8 duplicate interactions')
def test_held_out_interactions_do_not_matter():
    rng = np.random.default_rng(0)
    user, item = (index.copy() for index in np.nonzero(rng.random((12, 10)) < 0.5))
    label = rng.choice(3, size=len(user), p=[0.7, 0.15, 0.15])
    label[[int((user == u).argmax()) for u in range(12)]] = 0
    features = {'text': rng.standard_normal((10, 4)).astype(np.float32)}
    train = label == 0
    datasets = [
        Toy(user, item, label, features),
        Toy(user, np.where(train, item, 9), label, features),
        Toy(user, item, np.where(train, 0, 3 - label), features),
    ]
    first, *others = (transform(3)(dataset[0])[ITEM].x_behavior for dataset in datasets)
    assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(datasets[0].targets('test').item, datasets[1].targets('test').item)


def test_cold_items_get_the_mean_of_their_neighbors():
    text = torch.zeros(20, 3)
    text[:18] = torch.randn(18, 3, generator=torch.Generator().manual_seed(0))
    text[18] = 2 * text[4] + 0.01 * text[7]  # Content decides by direction.
    data, _ = random_data(cold=2, text=text)
    nearest = (
        torch.nn.functional.normalize(text[:18]) @ torch.nn.functional.normalize(text[18], dim=0)
    ).topk(3)
    x = transform(k=3)(data)[ITEM].x_behavior
    assert int(nearest.indices[0]) == 4
    assert torch.allclose(x[18], x[nearest.indices].mean(dim=0), atol=1e-6)
    assert not bool(x[19].any())  # No content either.
    assert torch.allclose(transform(k=1)(data)[ITEM].x_behavior[18], x[4])
    assert transform(k=100)(data)[ITEM].x_behavior[18].isfinite().all()  # More than there are.

    zero = transform(cold='zero')(data)[ITEM].x_behavior
    assert torch.equal(zero[:18], x[:18]) and not bool(zero[18:].any())
    alone, _ = random_data(cold=2)
    assert not bool(transform()(alone)[ITEM].x_behavior[18:].any())


def test_modalities_of_content():
    generator = torch.Generator().manual_seed(0)
    image, text = torch.rand(20, 4, generator=generator), torch.randn(20, 3, generator=generator)
    image[18], text[18] = image[2], text[5]
    data, _ = random_data(cold=2, image=image, text=text)
    for names, expected in ((['image'], 2), (['text'], 5)):
        x = transform(k=1, modalities=names)(data)[ITEM].x_behavior
        assert torch.allclose(x[18], x[expected])
    data[ITEM].mask_image = torch.arange(20) != 18
    x = transform(k=1)(data)[ITEM].x_behavior
    assert torch.allclose(x[18], x[5])
    # An item without a picture is not near because of the picture in its place.
    data[ITEM].mask_image = torch.arange(20) != 2
    x = transform(k=1, modalities=['image'])(data)[ITEM].x_behavior
    assert not torch.allclose(x[18], x[2])


def test_items_out_of_reach_fall_back():
    r"""A pair apart from the rest has a large singular value without
    smoothing, and a small one with it.
    """
    _, dense = random_data(cold=1)
    dense = np.pad(dense, ((0, 1), (0, 0)))
    dense[30, 19] = 1
    data = make_data(np.argwhere(dense), 31, 20, text=torch.randn(20, 3))
    plain = transform(3, smoothing=0.0)(data)[ITEM]
    assert bool(plain.mask_behavior.all())
    assert plain.x_behavior[19].norm() == pytest.approx(1)  # All of two channels' length.
    smooth = transform(3)(data)[ITEM]
    assert smooth.mask_behavior.tolist() == [True] * 19 + [False]
    assert smooth.x_behavior[19].norm() > 0.01


def test_channels_beyond_the_rank_are_zero():
    pairs = [(u, i) for u in range(8) for i in range(6) if u % 2 == i % 2]
    x = transform(4, power=0.0, smoothing=0.0)(make_data(pairs, 8, 6))[ITEM].x_behavior
    assert bool(x[:, :2].any(dim=0).all()) and not bool(x[:, 2:].any())


def test_new_items():
    data, _ = random_data(cold=2, text=torch.randn(20, 3), image=torch.randn(20, 4))
    svd = transform()
    out = svd(data)
    features = {'text': data[ITEM].x_text[17:], 'image': data[ITEM].x_image[17:]}
    x = svd.encode(out, features)
    assert torch.equal(x[1:], out[ITEM].x_behavior[18:])  # As if they had been there.
    assert x.dtype == torch.float and x.shape == (3, 5)
    lacking = svd.encode(out, features, mask={'image': torch.tensor([True, False, True])})
    assert torch.equal(lacking[[0, 2]], x[[0, 2]]) and not torch.equal(lacking[1], x[1])
    assert not bool(transform(cold='zero').encode(out, features).any())

    extended = add_items(out, {**features, 'behavior': x})
    assert torch.equal(extended[ITEM].x_behavior[20:], x)


def test_errors_of_new_items():
    data, _ = random_data(text=torch.randn(20, 3))
    with pytest.raises(ValueError, match='x_behavior with 5 columns is missing'):
        transform().encode(data, {'text': torch.randn(2, 3)})
    out = transform()(data)
    for features, mask, message in (
        ({}, None, r"lack features of \['text'\]"),
        ({'text': torch.randn(2, 4)}, None, 'expected 3'),
        ({'text': torch.full((2, 3), float('nan'))}, None, "The features of 'text'"),
        ({'text': torch.randn(2, 3), 'image': torch.randn(3, 3)}, None, 'number of rows'),
        ({'text': torch.randn(2, 3)}, {'text': torch.ones(3)}, r'expected \[2\]'),
        ({'text': torch.randn(2, 3)}, {'audio': torch.ones(2)}, "'audio'"),
    ):
        with pytest.raises(ValueError, match=message):
            transform().encode(out, features, mask)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        ({'channels': 0}, 'channels and k must be at least 1'),
        ({'k': 0}, 'channels and k must be at least 1'),
        ({'power': -1.0}, 'power and smoothing must be at least 0'),
        ({'smoothing': float('nan')}, 'power and smoothing must be at least 0'),
        ({'cold': 'mean'}, "cold must be one of neighbors, zero, got 'mean'"),
        ({'modality': ''}, 'name of the new modality is empty'),
        ({'modalities': ['behavior']}, 'cannot be one of its own content'),
    ],
)
def test_errors_of_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        InteractionSVD(**kwargs)


def test_errors_of_graphs():
    data, _ = random_data(cold=4)
    transform(15)(data)
    for channels in (16, 64):
        message = rf'users \(29\) and of items \(16\) with training interactions, got {channels}'
        with pytest.raises(ValueError, match=message):
            transform(channels)(data)
    with pytest.raises(ValueError, match=r'users \(0\)'):
        transform()(make_data([], 3, 4))
    with pytest.raises(ValueError, match='x_video is missing'):
        transform(modalities=['video'])(data)


def test_repr():
    assert str(InteractionSVD(32, smoothing=0.5)) == (
        "InteractionSVD(32, power=1.0, smoothing=0.5, cold='neighbors')"
    )


def test_nodes_and_edges_of_any_name():
    text = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    data, _ = random_data(cold=3, text=text)
    expected = transform()(data)
    new = transform().encode(expected, {'text': text[:2]})
    shop = HeteroData()
    shop['customer'].num_nodes = 30
    shop['product'].x_text = text  # The number of items is that of its rows.
    shop['customer', 'buys', 'product'].edge_index = data[RATES].edge_index
    kinds = shop.node_types, shop.edge_types
    with pytest.raises(ValueError, match=r"it has \('customer', 'buys', 'product'\); name the"):
        transform()(shop)
    other = transform(edge_type=('customer', 'buys', 'product'))
    out = other(shop)
    for key in ('x_behavior', 'mask_behavior'):
        assert torch.equal(out['product'][key], expected[ITEM][key])
    assert torch.equal(other.encode(out, {'text': text[:2]}), new)
    assert (shop.node_types, shop.edge_types) == kinds and 'x_behavior' not in shop['product']
    with pytest.raises(ValueError, match='x_behavior with 5 columns is missing'):
        other.encode(shop, {'text': text[:2]})
    assert str(other).endswith("edge_type=('customer', 'buys', 'product'))")
    del shop['customer'].num_nodes
    with pytest.raises(ValueError, match=r"no data\['customer'\].num_nodes"):
        other(shop)
    with pytest.raises(ValueError, match='got a Data'):
        transform()(Data(x=text))


def test_content_of_items_without_it_may_be_anything():
    text = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    audio = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    holes = text.clone()
    holes[[0, 19]] = torch.nan
    data, _ = random_data(cold=3, text=text, audio=audio)
    data[ITEM].mask_text = torch.ones(20, dtype=torch.bool)
    data[ITEM].mask_text[[0, 19]] = False
    expected = transform()(data)
    data[ITEM].x_text = holes
    out = transform()(data)
    assert torch.equal(out[ITEM].x_behavior, expected[ITEM].x_behavior)
    absent = torch.zeros(2, dtype=torch.bool)
    zeros = transform().encode(out, {'audio': audio[:2], 'text': torch.zeros(2, 4)})
    for features in ({'audio': audio[:2]}, {'audio': audio[:2].tolist(), 'text': holes[[0, 0]]}):
        assert torch.equal(transform().encode(out, features, {'text': absent}), zeros)


def test_inference_mode():
    data, _ = random_data()
    with torch.inference_mode():
        x = transform()(data)[ITEM].x_behavior
    assert not x.is_inference() and torch.equal(x, transform()(data)[ITEM].x_behavior)


def test_tokens_of_behavior():
    pytest.importorskip('faiss')
    dataset = SyntheticClusters(num_users=400, num_items=300, num_interactions=4000)
    data = InteractionSVD(16)(dataset[0])
    known = data[ITEM].mask_behavior
    tokenizer = OPQTokenizer(
        {'behavior': 4, 'image': 2, 'text': 2},
        codebook_size=16,
        center=True,
        normalize=True,
        num_iters=3,
        verbose=False,
    )
    token_id = tokenizer(data)[ITEM].token_id
    assert list(tokenizer.num_tokens_dict) == ['behavior', 'image', 'text']
    assert token_id.shape == (300, 8) and 0 < int((~known).sum()) < 30

    # Items of the same users share tokens, items without users do not share one code.
    user, item = data[RATES].edge_index
    matrix = torch.zeros(400, 300)
    matrix[user, item] = 1
    common = matrix.t() @ matrix
    common.fill_diagonal_(0)
    behavior = token_id[:, :4]
    shared = (behavior.unsqueeze(0) == behavior.unsqueeze(1)).float().mean(dim=2)
    both = known.view(-1, 1) & known
    often = both & (common >= common[both].quantile(0.999))
    assert shared[often].mean() > 2 * shared[both].mean()
    assert behavior[~known].unique(dim=0).size(0) > 1

    new = {m: data[ITEM][f'x_{m}'][~known] for m in ('image', 'text')}
    mask = {'image': data[ITEM].mask_image[~known]}
    new['behavior'] = InteractionSVD(16).encode(data, new, mask)
    assert torch.equal(tokenizer.encode(new), token_id[~known])
