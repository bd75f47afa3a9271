import os.path as osp
import sys

import numpy as np
import pytest
import torch
import torch_geometric
import torch_geometric.transforms as T
from torch_geometric.data import Data, HeteroData

from motor_geo.data import ItemKNN
from motor_geo.data.transforms.fit_quantizer import fit_quantizer
from motor_geo.data.transforms.opq_tokenizer import OPQTokenizer
from tests.data.token_cases import CASES, features, make_data, tokenizer

DATA = osp.join(osp.dirname(__file__), '..', '..', '..', '..', 'shared', 'data')


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_geometric, 'get_home_dir', lambda: str(tmp_path / 'home'))


def test_columns_and_dtype():
    image, text = features(80, 6, seed=1), features(80, 9, seed=2)
    data = make_data(text=text, image=image)
    transform = tokenizer({'text': 3, 'image': 2})
    assert transform.num_tokens_dict == {'image': 2, 'text': 3}
    out = transform(data)
    assert 'token_id' not in data['item']
    token_id = out['item'].token_id
    assert list(transform.num_tokens_dict) == ['image', 'text']
    assert torch.equal(token_id[:, :2].long(), transform.quantizers['image'].encode(image))
    assert torch.equal(token_id[:, 2:].long(), transform.quantizers['text'].encode(text))
    only = tokenizer(2, modalities=['text'])(data)['item'].token_id
    assert only.shape == (80, 2)
    for size, dtype in [(2, torch.uint8), (256, torch.uint8), (512, torch.int16)]:
        x = features(600, 4)
        out = tokenizer(1, size, num_iters=1)(make_data(x=x))['item'].token_id
        assert out.dtype == dtype
        out = out.long()
        assert 0 <= out.min() and size // 2 <= out.max() < size
    assert tokenizer(1, 2**15).dtype == torch.int16 and tokenizer(1, 2**16).dtype == torch.int32


def test_fits_a_random_sample_of_many_rows():
    x = features(90, 6)
    mask = torch.arange(90) % 3 > 0
    x[~mask] = 1e6  # Such rows are not in the sample.
    data = make_data(text=x)
    data['item'].mask_text = mask
    rows = np.random.default_rng(5).choice(np.flatnonzero(mask), 40, replace=False, shuffle=False)
    expected = tokenizer(seed=5).fit({'text': x[np.sort(rows)]}).quantizers['text'].state_dict()
    sampled = tokenizer(seed=5, max_rows=40).fit(data).quantizers['text'].state_dict()
    assert all(torch.equal(value, sampled[key]) for key, value in expected.items())
    both = [tokenizer(max_rows=n).fit(data).quantizers['text'] for n in (60, None, 2**18)]
    assert all(torch.equal(both[0].centroids, q.centroids) for q in both[1:])
    assert not torch.equal(both[0].centroids, sampled['centroids'])


def test_a_number_for_all_others(tmp_path):
    x = {'text': features(40, 6), 'image': features(40, 8)}
    transform = OPQTokenizer({'*': 2, 'text': 3}, codebook_size=16, cache=False, verbose=False)
    with pytest.raises(RuntimeError, match='not known before'):
        transform.num_tokens_dict  # noqa: B018
    transform.fit(x)
    assert transform.num_tokens_dict == {'image': 2, 'text': 3}
    named = OPQTokenizer({'image': 2, 'text': 3}, codebook_size=16, cache=False, verbose=False)
    token_id = named.fit(x).encode(x)
    assert torch.equal(transform.encode(x), token_id) and token_id.shape == (40, 5)
    transform.save(str(tmp_path / 'tokenizer.pt'))
    loaded = OPQTokenizer.load(str(tmp_path / 'tokenizer.pt'))
    assert loaded.num_tokens == {'*': 2, 'text': 3} and torch.equal(loaded.encode(x), token_id)
    single = OPQTokenizer({'*': 2}, codebook_size=16, cache=False, verbose=False)
    assert single.fit(x['text']).num_tokens_dict == {'x': 2}
    with pytest.raises(ValueError, match=r"num_tokens names \['sound'\], expected only"):
        OPQTokenizer({'*': 2, 'sound': 3}, codebook_size=16, cache=False).fit(x)


def test_fits_once():
    x, other = features(80, 6, seed=1), features(30, 6, seed=2)
    transform = tokenizer()
    first = transform(make_data(text=x))['item'].token_id
    before = transform.quantizers['text']
    second = transform(make_data(text=other))['item'].token_id
    assert transform.quantizers['text'] is before
    assert torch.equal(second, transform.encode({'text': other}))
    assert torch.equal(first, transform(make_data(text=x))['item'].token_id)


def test_fit_rows():
    x = features(60, 6)
    x[40:] += 100
    data = make_data(text=x)
    data['user', 'rates', 'item'].edge_index = torch.tensor([[0, 1, 0], [0, 1, 0]])
    data['user', 'rates', 'item'].edge_index = torch.stack(
        [torch.zeros(40).long(), torch.arange(40)]
    )
    data['item'].mask_text = torch.arange(60) != 39
    for fit_on, rows in [('train', torch.arange(39)), ('all', data['item'].mask_text)]:
        transform = tokenizer(fit_on=fit_on).fit(data)
        expected = tokenizer().fit(make_data(text=x[rows]))
        for name in ['mean', 'centroids', 'rotation']:
            left = getattr(transform.quantizers['text'], name)
            assert torch.equal(left, getattr(expected.quantizers['text'], name))
        assert transform(data)['item'].token_id.size(0) == 60
    data['user', 'rates', 'item'].edge_index = torch.empty(2, 0, dtype=torch.long)
    mean = tokenizer().fit(data).quantizers['text'].mean
    assert torch.allclose(mean, x[data['item'].mask_text].mean(dim=0), atol=1e-4)


def test_deterministic_and_seeded():
    data = make_data(text=features(200, 8))
    out = [tokenizer(4, seed=seed)(data)['item'].token_id for seed in [0, 0, 1]]
    assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2])


def test_half_precision_and_memory_map(tmp_path):
    x = features(80, 6).half()
    np.save(tmp_path / 'x.npy', x.numpy())
    mapped = np.load(tmp_path / 'x.npy', mmap_mode='r')
    expected = tokenizer()(make_data(text=x.float()))['item'].token_id
    assert torch.equal(tokenizer()(make_data(text=x))['item'].token_id, expected)
    transform = tokenizer().fit(make_data(text=x))
    assert torch.equal(transform.encode({'text': mapped}), expected)
    assert torch.equal(transform.encode({'text': x.double()}), expected)


def test_mask():
    image, text = features(50, 6, seed=1), features(50, 8, seed=2)
    transform = tokenizer(modalities=['image', 'text']).fit(make_data(image=image, text=text))
    has_image = torch.tensor([True, False, True])
    new = {'image': image[:3].clone(), 'text': text[:3]}
    new['image'][1] = torch.nan
    out = transform.encode(new, mask={'image': has_image})
    mean = {'image': image.mean(dim=0, keepdim=True), 'text': text[1:2]}
    assert torch.equal(out[1:2], transform.encode(mean))
    assert torch.equal(
        out[[0, 2]], transform.encode({'image': image[[0, 2]], 'text': text[[0, 2]]})
    )
    assert new['image'][1].isnan().all()
    with pytest.raises(ValueError, match="'image': row 1 holds NaN"):
        transform.encode(new)
    with pytest.raises(ValueError, match=r"mask of the modality 'image' has shape \[2\]"):
        transform.encode(new, mask={'image': has_image[:2]})


@pytest.mark.parametrize('case', CASES)
def test_save_and_load(case, tmp_path):
    data = make_data(text=features(60, 10), image=features(60, 12))
    transform = tokenizer(**{**case, 'num_tokens': {'text': 2, 'image': 3}})
    path = str(tmp_path / 'tokens.pt')
    with pytest.raises(RuntimeError, match='not fitted'):
        transform.save(path)
    expected = transform(data)['item'].token_id
    transform.save(path)
    loaded = OPQTokenizer.load(path)
    assert str(loaded) == str(transform)
    for name, value in vars(transform).items():
        assert name == 'quantizers' or getattr(loaded, name) == value
    assert loaded.num_tokens_dict == {'image': 3, 'text': 2}
    assert torch.equal(loaded(data)['item'].token_id, expected)
    assert loaded.report(data) == transform.report(data)


def test_load_errors(tmp_path):
    path = str(tmp_path / 'tokens.pt')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        OPQTokenizer.load(path)
    tokenizer().fit(make_data(text=features(60, 10))).save(path)
    content = open(path, 'rb').read()
    for broken in [b'', b'not a tokenizer', content[: len(content) // 2]]:
        with open(path, 'wb') as f:
            f.write(broken)
        with pytest.raises(ValueError, match=r'tokens.pt. cannot be read as a saved tokenizer'):
            OPQTokenizer.load(path)
    for foreign in [{'weight': torch.zeros(2)}, torch.zeros(3), [1]]:
        torch.save(foreign, path)
        with pytest.raises(ValueError, match='is not a saved tokenizer'):
            OPQTokenizer.load(path)


def test_encoding_needs_no_faiss(tmp_path, monkeypatch):
    data = make_data(text=features(60, 10))
    transform = tokenizer()
    expected = transform(data)['item'].token_id
    transform.save(str(tmp_path / 'tokens.pt'))
    monkeypatch.setitem(sys.modules, 'faiss', None)
    loaded = OPQTokenizer.load(str(tmp_path / 'tokens.pt'))
    assert torch.equal(loaded(data)['item'].token_id, expected)
    with pytest.raises(ImportError, match='needs faiss-cpu: pip install .*faiss-cpu'):
        tokenizer().fit(data)


def test_cache(monkeypatch):
    data = make_data(text=features(60, 10))
    expected = tokenizer(cache=True)(data)['item'].token_id
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return fit_quantizer(*args, **kwargs)

    monkeypatch.setattr('motor_geo.data.transforms.opq_tokenizer.fit_quantizer', counted)
    assert torch.equal(tokenizer(cache=True)(data)['item'].token_id, expected)
    assert not calls
    for i, kwargs in enumerate(
        [
            {'seed': 1},
            {'num_iters': 4},
            {'center': True},
            {'whiten': True},
            {'method': 'rq'},
            {'max_dim': 5},
        ]
    ):
        tokenizer(cache=True, **kwargs)(data)
        assert len(calls) == i + 1
    tokenizer(cache=True)(make_data(text=features(60, 10) + 1))
    assert len(calls) == 7
    tokenizer(cache=False)(data)
    assert len(calls) == 8

    # Tokens of features that were seen before are not computed again.
    def broken(*args):
        raise AssertionError

    other = make_data(text=features(60, 10).flip(0))
    with monkeypatch.context() as patch:
        patch.setattr('motor_geo.data.transforms.opq_tokenizer.Quantizer.encode', broken)
        assert torch.equal(tokenizer(cache=True)(data)['item'].token_id, expected)
        for graph, kwargs in [(other, {}), (data, {'cache': False})]:
            with pytest.raises(AssertionError):
                tokenizer(**{'cache': True, **kwargs}).fit(data)(graph)
        transform = tokenizer(cache=True).fit(data)
        transform.quantizers['text'].centroids.add_(1)
        with pytest.raises(AssertionError):
            transform(data)


def test_setting_errors():
    for kwargs, match in [
        ({'num_tokens': 0}, 'num_tokens must be at least 1'),
        ({'num_tokens': {'text': -1}}, 'num_tokens must be at least 1'),
        ({'codebook_size': 100}, 'power of two between 2 and 65536, got 100'),
        ({'codebook_size': 1}, 'power of two'),
        ({'codebook_size': 2**17}, 'power of two'),
        (
            {'method': 'vq'},
            "method must be one of opq, pq, rq, rqvae, letter, or an import path, got 'vq'",
        ),
        ({'balance': 0}, 'balance must be above 0 and at most 1, or None, got 0'),
        ({'method': 3}, 'method must be a name, got 3'),
        ({'modalities': 3}, 'modalities must be names, got 3'),
        (
            {'method': 'rqvae', 'method_kwargs': 'latent'},
            'method_kwargs must map settings to values',
        ),
        ({'balance': 'a'}, "balance must be above 0 and at most 1, or None, got 'a'"),
        ({'num_near': 0}, 'num_near must be at least 1 and at most codebook_size=16, got 0'),
        ({'num_near': 17}, 'num_near must be at least 1 and at most codebook_size=16, got 17'),
        ({'method_kwargs': {'lr': 1}}, "the method 'opq' has no setting 'lr'; expected none"),
        ({'init': 'zero'}, 'init must be one of'),
        ({'fit_on': 'test'}, 'fit_on must be one of'),
        ({'num_iters': -1}, 'num_iters=-1 is too small'),
        ({'max_dim': 0}, 'max_dim must be at least 1'),
        ({'max_rows': 15}, 'max_rows must be at least codebook_size=16, or None, got 15'),
    ]:
        with pytest.raises(ValueError, match=match):
            tokenizer(**kwargs)
    with pytest.raises(RuntimeError, match='before the tokenizer is fitted'):
        _ = tokenizer().num_tokens_dict
    with pytest.raises(RuntimeError, match='not fitted yet'):
        tokenizer().encode({'text': torch.zeros(1, 2)})


def test_data_errors():
    x = features(60, 6)
    with pytest.raises(ValueError, match="no nodes 'item', it has none"):
        tokenizer()(make_data())
    empty = make_data()
    empty['item'].num_nodes = 9
    with pytest.raises(ValueError, match='no item features'):
        tokenizer()(empty)
    with pytest.raises(ValueError, match='x_image is missing'):
        tokenizer(modalities=['image'])(make_data(text=x))
    with pytest.raises(ValueError, match="no entry for the modality 'text'"):
        tokenizer({'image': 2})(make_data(text=x, image=x))
    with pytest.raises(ValueError, match=r"names \['audio'\], expected only \['text'\]"):
        tokenizer({'text': 2, 'audio': 2})(make_data(text=x))
    with pytest.raises(
        ValueError, match="'text' has 60 rows to fit 64 centroids .* codebook_size=32"
    ):
        tokenizer(2, 64)(make_data(text=x))
    with pytest.raises(ValueError, match="'text' has 1 row to fit to; expected at least 2 items"):
        tokenizer(2, 2)(make_data(text=x[:1]))
    with pytest.raises(ValueError, match=r"masks name \['b'\], expected only \['a'\]"):
        tokenizer().fit({'a': x}, {'b': torch.ones(60)})
    with pytest.raises(ValueError, match="differ in their number of rows: {'a': 60, 'b': 50}"):
        tokenizer().fit({'a': x, 'b': x[:50]})
    with pytest.raises(ValueError, match='k and num_samples must be at least 1, got 10 and 0'):
        tokenizer().report(make_data(text=x), num_samples=0)
    with pytest.raises(ValueError, match="'text' has 6 columns to cut into 7 tokens"):
        tokenizer(7)(make_data(text=x))
    assert tokenizer(7, method='rq')(make_data(text=x))['item'].token_id.shape == (60, 7)
    with pytest.raises(ValueError, match=r'must be a matrix .* got \[60\]'):
        tokenizer()(make_data(text=x[:, 0]))
    bad = x.clone()
    bad[5, 2] = torch.inf
    with pytest.raises(ValueError, match='x_text: row 5 holds NaN or infinite values'):
        tokenizer()(make_data(text=bad))
    transform = tokenizer()
    transform(make_data(text=x, image=x))
    for new, match in [
        ({'text': x}, "'image' are missing"),
        ({'text': x, 'image': x, 'audio': x}, "'audio' is unknown"),
        ({'text': x, 'image': x[:, :4]}, "'image' has 4 columns, expected 6"),
        ({'text': x, 'image': x[:4]}, "differ in their number of rows: {'image': 4, 'text': 60}"),
    ]:
        with pytest.raises(ValueError, match=match):
            transform.encode(new)


def test_repr():
    assert str(OPQTokenizer(4)) == "OPQTokenizer(num_tokens=4, codebook_size=256, method='opq')"
    transform = tokenizer({'text': 3}, whiten=True, node_type='product')
    text = (
        "OPQTokenizer(num_tokens={'text': 3}, codebook_size=16, method='opq', whiten=True, "
        "num_iters=3, node_type='product')"
    )
    assert str(transform) == text
    # PyG compares the text of a transform with that of an earlier process.
    transform.fit({'text': features(40, 6)})
    assert str(transform) == text


def shop(relation='buys', num_items=60):
    r"""Customers and products, 20 of which nobody bought and are far off."""
    x = features(num_items, 6)
    x[40:] += 100
    data = HeteroData()
    data['customer'].num_nodes = 10
    data['product'].x_text = x
    data['customer', relation, 'product'].edge_index = torch.stack(
        [torch.arange(40) % 10, torch.arange(40)]
    )
    return data


def test_nodes_and_edges_of_any_name():
    data = shop()
    x = data['product'].x_text
    expected = tokenizer().fit({'text': x[:40]})
    kinds = data.node_types, data.edge_types
    for edge_type in [('customer', 'buys', 'product'), ('product', 'bought_by', 'customer')]:
        graph = shop()
        graph['product', 'bought_by', 'customer'].edge_index = data[
            'customer', 'buys', 'product'
        ].edge_index.flip(0)
        transform = tokenizer(node_type='product', edge_type=edge_type)
        out = transform(graph)['product'].token_id
        assert torch.equal(transform.quantizers['text'].mean, expected.quantizers['text'].mean)
        assert torch.equal(out, expected.encode(x))
    # Interactions of another name are never overlooked, and nothing is added to the graph.
    with pytest.raises(ValueError, match=r"no nodes 'item', it has 'customer', 'product'"):
        tokenizer().fit(data)
    message = r"no edges \('user', 'rates', 'item'\) of 'product', it has \('customer', 'buys'"
    for call in (tokenizer(node_type='product').fit, tokenizer(node_type='product').report):
        with pytest.raises(ValueError, match=message):
            call(data)
    renamed = make_data(text=x)
    renamed['user', 'buys', 'item'].edge_index = torch.tensor([[0], [0]])
    with pytest.raises(ValueError, match=r"it has \('user', 'buys', 'item'\): name the"):
        tokenizer().fit(renamed)
    assert (data.node_types, data.edge_types) == kinds
    everything = tokenizer(node_type='product', fit_on='all').fit(data)
    assert float(everything.quantizers['text'].mean.mean()) > 30
    # Item graphs are no interactions.
    graph = make_data(text=x[:40])
    graph['item', 'similar_text', 'item'].edge_index = torch.tensor([[0], [0]])
    assert torch.equal(
        tokenizer().fit(graph).quantizers['text'].mean, expected.quantizers['text'].mean
    )
    with pytest.raises(ValueError, match="Expected a HeteroData with nodes 'item', got a Data"):
        tokenizer()(Data(x=x))
    with pytest.raises(ValueError, match='hold item 39, but there are 30 rows'):
        data['product'].x_text = x[:30]
        tokenizer(node_type='product', edge_type=('customer', 'buys', 'product')).fit(data)
    with pytest.raises(ValueError, match='edge_type must be a triple'):
        tokenizer(edge_type='buys')


def test_plain_features_are_a_modality(tmp_path):
    x, text = features(60, 6, seed=1), features(60, 8, seed=2)
    data = make_data(text=text)
    data['item'].x = x
    transform = tokenizer()
    out = transform(data)['item'].token_id
    assert list(transform.num_tokens_dict) == ['text', 'x']
    assert torch.equal(out, transform.encode({'x': x, 'text': text}))
    only = tokenizer(modalities='x', node_type='product', edge_type=('u', 'r', 'product'))
    graph = HeteroData()
    graph['product'].x = x
    assert torch.equal(only(graph)['product'].token_id, out[:, 2:])
    only.save(str(tmp_path / 'tokens.pt'))
    loaded = OPQTokenizer.load(str(tmp_path / 'tokens.pt'))
    assert loaded.node_type == 'product' and loaded.edge_type == ('u', 'r', 'product')
    assert torch.equal(loaded(graph)['product'].token_id, out[:, 2:])


def test_fits_and_encodes_without_a_graph():
    x = features(60, 6)
    expected = tokenizer()(make_data(text=x))['item'].token_id
    one = tokenizer(modalities='text').fit(x)
    assert list(one.quantizers) == ['text'] and list(tokenizer().fit(x).quantizers) == ['x']
    for values in (x, x.numpy(), x.tolist(), {'text': x.tolist()}, make_data(text=x)):
        assert torch.equal(one.encode(values), expected)
        assert torch.equal(tokenizer(modalities='text').fit(values).encode(x), expected)
    mask = torch.arange(60) < 40
    masked = tokenizer().fit({'text': x}, mask={'text': mask}).quantizers['text'].mean
    assert torch.equal(masked, tokenizer().fit({'text': x[:40]}).quantizers['text'].mean)
    two = tokenizer().fit({'text': x, 'image': x})
    for call in (two.encode, tokenizer(modalities=['text', 'image']).fit):
        with pytest.raises(ValueError, match=r"single matrix, expected one for each of \['image'"):
            call(x)
    for bad, message in [
        ([[1.0, 2.0], [3.0]], 'ragged'),
        ([['a', 'b']], 'must hold numbers'),
        ([1.0, 2.0], r'must be a matrix \[items, width\], got \[2\]'),
    ]:
        with pytest.raises(ValueError, match=message):
            one.encode(bad)
    with pytest.raises(ValueError, match='A graph has its own masks'):
        one.encode(make_data(text=x), mask={'text': mask})


def test_what_is_missing_may_hold_anything():
    x, mask = features(60, 6), torch.arange(60) % 3 > 0
    holes = x.clone()
    holes[0], holes[3, 2] = torch.nan, torch.inf  # Of an item without the modality.
    data = make_data(text=holes)
    with pytest.raises(ValueError, match=r'row 0 holds NaN.*mask_text, False where'):
        tokenizer()(data)
    data['item'].mask_text = mask
    transform = tokenizer()
    out = transform(data)['item'].token_id
    plain = make_data(text=x)
    plain['item'].mask_text = mask
    expected = tokenizer()(plain)['item'].token_id
    mean = transform.encode(x[mask].mean(dim=0, keepdim=True))
    assert torch.equal(out[[0, 3]], mean.expand(2, -1))
    rest = [i for i in range(60) if i not in (0, 3)]
    assert torch.equal(out[rest], expected[rest])  # As if nothing was there.
    assert holes[0].isnan().all()
    data['item'].mask_text[0] = True
    with pytest.raises(ValueError, match='row 0 holds NaN'):
        tokenizer()(data)
    data['item'].mask_text = mask[:9]
    with pytest.raises(ValueError, match=r'has 60 rows, but its mask \[9\]'):
        tokenizer()(data)


def test_new_items_may_lack_a_modality():
    image, text = features(50, 6, seed=1), features(50, 8, seed=2)
    transform = tokenizer().fit({'image': image, 'text': text})
    nothing = torch.full((3, 6), torch.nan)
    absent = torch.zeros(3, dtype=torch.bool)
    expected = transform.encode({'image': nothing, 'text': text[:3]}, mask={'image': absent})
    for mask in (absent, absent.numpy(), absent.tolist()):
        assert torch.equal(transform.encode({'text': text[:3]}, mask={'image': mask}), expected)
    with pytest.raises(ValueError, match="'image' are missing.*pass a mask"):
        transform.encode({'text': text[:3]}, mask={'image': ~absent})
    with pytest.raises(ValueError, match='differ in their number of rows'):
        transform.encode({'text': text[:2]}, mask={'image': absent})
    with pytest.raises(ValueError, match="'image' has 4 columns, expected 6"):
        transform.encode({'image': image[:3, :4], 'text': text[:3]}, mask={'image': absent})


def test_numbers_of_any_integer_type():
    data = make_data(text=features(60, 6))
    expected = tokenizer(2, cache=True)(data)['item'].token_id
    options = {'codebook_size': np.int32(16), 'seed': np.uint8(0), 'num_iters': torch.tensor(3)}
    for num_tokens in (np.int64(2), {'text': np.int64(2)}):
        transform = tokenizer(num_tokens, cache=True, **options)
        assert torch.equal(transform(data)['item'].token_id, expected)
    for kwargs in ({'num_tokens': 2.5}, {'num_tokens': 'two'}, {'codebook_size': 16.0}):
        with pytest.raises(ValueError, match=f'{next(iter(kwargs))} must be an integer, got'):
            tokenizer(**kwargs)
    assert tokenizer(modalities='text').modalities == ['text']


def test_inference_mode():
    r"""What is made under it can be trained with."""
    x = features(60, 6)
    expected = tokenizer()(make_data(text=x))['item'].token_id
    with torch.inference_mode():
        transform = tokenizer()
        out = transform(make_data(text=x.clone()))['item'].token_id
        new = transform.encode({'text': x.clone()})
    assert torch.equal(out, expected) and torch.equal(new, expected)
    assert not out.is_inference() and not new.is_inference() and not new.requires_grad
    assert torch.equal(transform.encode(x.requires_grad_()), expected)


def test_compose():
    x = features(60, 6)
    both = T.Compose([tokenizer(), ItemKNN(4, cache=False)])
    out = both(make_data(text=x))
    assert out['item'].token_id.shape == (60, 2)
    assert out['item', 'similar_text', 'item'].edge_index.shape == (2, 240)
    assert 'OPQTokenizer(num_tokens=2' in str(both) and 'ItemKNN(k=4, ' in str(both)


@pytest.mark.skipif(not osp.isdir(DATA), reason='needs the real data')
def test_real_data():
    x = torch.from_numpy(np.load(osp.join(DATA, 'tiktok', 'image_feat.npy')))
    report = tokenizer(4, 256, num_iters=2).report(make_data(image=x))['modalities']['image']
    assert 0.35 < report['error'] < 0.43
    assert min(report['used']) == 256
