import inspect
import os
import os.path as osp
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch_geometric
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from motor_geo.data import quantize
from motor_geo.data.features import unique_rows
from motor_geo.data.quantize import Quantizer, fit_quantizer, import_faiss
from motor_geo.data.tokenize import OPQTokenizer

faiss = pytest.importorskip('faiss')

GOLDEN = osp.join(osp.dirname(__file__), '..', 'golden', 'tokens.npz')
DATA = osp.join(osp.dirname(__file__), '..', '..', '..', 'shared', 'data')


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_geometric, 'get_home_dir', lambda: str(tmp_path / 'home'))


def features(num_rows, width, seed=0, rank=4):
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(num_rows, rank, generator=generator)
    x = low @ torch.randn(rank, width, generator=generator)
    return x + 0.1 * torch.randn(num_rows, width, generator=generator)


def make_data(**kwargs):
    data = HeteroData()
    for name, x in kwargs.items():
        data['item'][f'x_{name}'] = x
    return data


def tokenizer(num_tokens=2, codebook_size=16, **kwargs):
    kwargs = {'num_iters': 3, 'cache': False, 'verbose': False, **kwargs}
    return OPQTokenizer(num_tokens, codebook_size, **kwargs)


def naive_codes(quantizer, x):
    r"""One row, one token and one centroid after the other."""
    out = []
    for row in x.double():
        if quantizer.center:
            row = row - quantizer.mean.double()
        if quantizer.normalize and bool(row.any()):
            row = row / row.norm()
        scale = None if quantizer.scale is None else quantizer.scale.diag()
        for matrix in [quantizer.projection, scale, quantizer.rotation]:
            row = row if matrix is None else matrix.double() @ row
        num_tokens, _, size = quantizer.centroids.shape
        if not quantizer.residual:
            row = torch.cat([row, row.new_zeros(num_tokens * size - row.numel())])
        codes = []
        for t in range(num_tokens):
            block = row if quantizer.residual else row[t * size : (t + 1) * size]
            distance = [float((block - c).square().sum()) for c in quantizer.centroids[t].double()]
            codes.append(distance.index(min(distance)))
            if quantizer.residual:
                row = row - quantizer.centroids[t, codes[-1]].double()
        out.append(codes)
    return torch.tensor(out)


@pytest.mark.parametrize('prefix', ['k16', 'k256'])
def test_golden_assignment(prefix):
    arrays = np.load(GOLDEN)
    x = torch.from_numpy(arrays['features'])
    quantizer = Quantizer(
        mean=torch.zeros(24),
        centroids=torch.from_numpy(arrays[f'{prefix}_centroids']),
        rotation=torch.from_numpy(arrays[f'{prefix}_rotation']),
    )
    z = quantizer.transform(quantizer.prepare(x))
    assert np.allclose(z.numpy(), arrays[f'{prefix}_rotated'], atol=1e-5)
    codes = quantizer.encode(x)
    assert np.array_equal(codes.numpy(), arrays[f'{prefix}_codes'])
    error = float((quantizer.decode(codes) - z).square().sum(dim=1).mean())
    assert error == pytest.approx(float(arrays[f'{prefix}_quantisation_error']), rel=1e-5)


def test_equals_faiss_factory():
    x = features(400, 12).numpy()
    index = faiss.index_factory(12, 'OPQ4_12,PQ4x8np')  # Without relabelling.
    opq = faiss.downcast_VectorTransform(index.chain.at(0))
    pq = faiss.downcast_index(index.index).pq
    opq.niter = 3
    inner = faiss.ProductQuantizer(12, 4, 8)
    opq.pq = inner
    for part in [inner, pq]:
        part.cp.seed = 7
        part.cp.min_points_per_centroid = 1
    index.train(x)
    expected = index.sa_encode(x)
    out = fit_quantizer(x, num_tokens=4, init='random', num_iters=3, seed=7)
    assert np.array_equal(out.encode(x).numpy(), expected)
    rotation = faiss.vector_to_array(opq.A).reshape(12, 12)
    assert np.allclose(out.rotation.numpy(), rotation, atol=1e-5)
    # The objects inside of the index, applied by hand:
    centroids = torch.from_numpy(faiss.vector_to_array(pq.centroids)).view(4, 256, 3)
    by_hand = Quantizer(torch.zeros(12), centroids, rotation=torch.from_numpy(rotation))
    assert np.array_equal(by_hand.encode(x).numpy(), expected)


CASES = [
    {'method': 'opq'},
    {'method': 'opq', 'num_tokens': 4, 'init': 'random'},
    {'method': 'opq', 'num_tokens': 3, 'max_dim': 5, 'center': True, 'normalize': True},
    {'method': 'pq', 'num_tokens': 4},
    {'method': 'pq', 'normalize': True, 'max_dim': 6},
    {'method': 'rq', 'num_tokens': 3},
    {'method': 'rq', 'center': True, 'max_dim': 3},
    {'method': 'opq', 'num_tokens': 3, 'whiten': True},
    {'method': 'pq', 'whiten': True, 'normalize': True, 'max_dim': 6},
    {'method': 'rq', 'whiten': True, 'max_dim': 3},
]


@pytest.mark.parametrize('case', CASES)
def test_encode_against_loops(case):
    x = features(60, 10)
    x[3] = 0
    data = make_data(text=x)
    transform = tokenizer(**case)
    out = transform(data)['item'].token_id
    num_tokens = case.get('num_tokens', 2)
    assert out.shape == (60, num_tokens) and out.dtype == torch.uint8
    quantizer = transform.quantizers['text']
    assert torch.equal(out.long(), naive_codes(quantizer, x))
    single = torch.cat([transform.encode({'text': row.view(1, -1)}) for row in x])
    assert torch.equal(out, single)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(transform.encode({'text': x[order]}), out[order])
    assert transform.encode({'text': x[:0]}).shape == (0, num_tokens)


@pytest.mark.parametrize('case', CASES)
def test_state(case):
    x = features(80, 10)
    transform = tokenizer(**case).fit(make_data(text=x))
    quantizer = transform.quantizers['text']
    assert torch.allclose(quantizer.mean, x.mean(dim=0), atol=1e-6)
    for matrix in [quantizer.projection, quantizer.rotation]:
        if matrix is not None:
            gram = matrix.t() @ matrix if matrix.size(0) > matrix.size(1) else matrix @ matrix.t()
            assert torch.allclose(gram, torch.eye(gram.size(0)), atol=1e-5)
    assert (quantizer.rotation is not None) == (case['method'] == 'opq')
    assert (quantizer.projection is not None) == ('max_dim' in case or 'whiten' in case)
    assert (quantizer.scale is not None) == ('whiten' in case)


def test_improves():
    x = features(400, 16, rank=8)
    data = make_data(text=x)
    error = {}
    for name, kwargs in {
        'pq': {'method': 'pq'},
        'start': {'num_iters': 0},
        'opq': {'num_iters': 10},
        'random': {'num_iters': 10, 'init': 'random'},
        'rq': {'method': 'rq'},
        'more': {'num_tokens': 8},
    }.items():
        kwargs = {'num_tokens': 4, **kwargs}
        report = tokenizer(**kwargs).report(data)['modalities']['text']
        error[name] = report['error']
    assert 0 < error['opq'] < error['start'] < error['pq'] < 1
    assert error['random'] < error['pq'] and error['more'] < error['opq'] and error['rq'] < 1


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
    assert str(transform) == (
        "OPQTokenizer(num_tokens={image: 2, text: 3}, codebook_size=16, method='opq')"
    )
    only = tokenizer(2, modalities=['text'])(data)['item'].token_id
    assert only.shape == (80, 2)
    assert str(tokenizer()) == "OPQTokenizer(num_tokens=2, codebook_size=16, method='opq')"
    for size, dtype in [(2, torch.uint8), (256, torch.uint8), (512, torch.int16)]:
        x = features(600, 4)
        out = tokenizer(1, size, num_iters=1)(make_data(x=x))['item'].token_id
        assert out.dtype == dtype
        out = out.long()
        assert 0 <= out.min() and size // 2 <= out.max() < size
    assert tokenizer(1, 2**15).dtype == torch.int16 and tokenizer(1, 2**16).dtype == torch.int32


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


def test_duplicates():
    x = features(10, 6)[torch.arange(90) % 10]
    transform = tokenizer(2, 32)
    with pytest.warns(UserWarning, match="'text' has only 10 distinct rows for 32 centroids"):
        token_id = transform(make_data(text=x))['item'].token_id
    for i in range(10):
        assert len(token_id[i::10].unique(dim=0)) == 1
    assert len(token_id.unique(dim=0)) == 10
    report = transform.report(make_data(text=x))
    assert report['collisions'] == 90
    assert report['modalities']['text']['duplicates'] == 90
    assert report['modalities']['text']['error'] < 1e-3
    assert max(report['modalities']['text']['used']) <= 10


def test_constant_features():
    with pytest.warns(UserWarning, match='1 distinct'):
        transform = tokenizer().fit(make_data(text=torch.zeros(20, 6)))
    assert transform.quantizers['text'].centroids.isfinite().all()
    assert len(transform.encode({'text': torch.zeros(20, 6)}).unique(dim=0)) == 1
    assert transform.report(make_data(text=torch.zeros(20, 6)))['modalities']['text']['error'] == 0


def test_ties_take_the_lowest_index():
    centroids = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    quantizer = Quantizer(torch.zeros(2), centroids)
    x = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0], [0.7, 0.1]])
    assert quantizer.encode(x).view(-1).tolist() == [0, 0, 1, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([1, 2, 3, 7]), st.booleans())
def test_chunks_do_not_matter(seed, num_rows, chunk, residual):
    generator = torch.Generator().manual_seed(seed)
    # A coarse grid: many exact ties between centroids.
    x = torch.randint(-2, 3, (num_rows, 4), generator=generator).float()
    size = 4 if residual else 2
    centroids = torch.randint(-2, 3, (2, 8, size), generator=generator).float()
    quantizer = Quantizer(torch.zeros(4), centroids, residual=residual)
    expected = naive_codes(quantizer, x)
    assert torch.equal(quantizer.encode(x), expected)
    parts = [quantizer.encode(part) for part in x.split(chunk)]
    assert torch.equal(torch.cat(parts), expected)


def test_half_precision_and_memory_map(tmp_path):
    x = features(80, 6).half()
    np.save(tmp_path / 'x.npy', x.numpy())
    mapped = np.load(tmp_path / 'x.npy', mmap_mode='r')
    expected = tokenizer()(make_data(text=x.float()))['item'].token_id
    assert torch.equal(tokenizer()(make_data(text=x))['item'].token_id, expected)
    transform = tokenizer().fit(make_data(text=x))
    assert torch.equal(transform.encode({'text': mapped}), expected)
    assert torch.equal(transform.encode({'text': x.double()}), expected)


def test_padding():
    x = features(80, 7)
    for method in ['opq', 'pq']:
        transform = tokenizer(3, method=method).fit(make_data(text=x))
        assert transform.quantizers['text'].centroids.shape == (3, 16, 3)
        z = transform.quantizers['text'].transform(x.double())
        assert z.shape == (80, 9)
        assert torch.allclose(z.norm(dim=1), x.double().norm(dim=1), rtol=1e-5)


def test_reduction():
    x = features(100, 30, rank=3)
    transform = tokenizer(max_dim=3)
    report = transform.report(make_data(text=x))['modalities']['text']
    centred = (x - x.mean(dim=0)).double()
    value = torch.linalg.svdvals(centred).square()
    assert report['kept_variance'] == pytest.approx(float(value[:3].sum() / value.sum()), rel=1e-5)
    quantizer = transform.quantizers['text']
    assert quantizer.projection.shape == (3, 30) and quantizer.centroids.shape == (2, 16, 2)
    assert report['error'] > 1 - report['kept_variance']
    assert tokenizer(max_dim=30).fit(make_data(text=x)).quantizers['text'].projection is None
    assert tokenizer(max_dim=None).fit(make_data(text=x)).quantizers['text'].projection is None


@pytest.mark.parametrize('case', [{}, {'num_tokens': 4}, {'method': 'pq'}, {'max_dim': 5}])
def test_whitening(case):
    x = features(100, 10, rank=6)
    x[:, 9] = x[:, 8]  # A direction without variance.
    transform = tokenizer(whiten=True, center=True, **case)
    report = transform.report(make_data(text=x))['modalities']['text']
    quantizer = transform.quantizers['text']
    z = quantizer.transform(quantizer.prepare(x))
    variance = torch.linalg.eigvalsh(torch.cov(z.t(), correction=0))
    rank = 5 if 'max_dim' in case else 9
    assert int((quantizer.scale > 0).sum()) == rank  # Nothing is blown up.
    assert torch.allclose(variance[-rank:], torch.ones(rank).double(), atol=1e-4)
    assert torch.allclose(variance[:-rank], torch.zeros(1).double(), atol=1e-4)
    # Errors are those of features: what is decoded goes all the way back.
    centred = (x - x.mean(dim=0)).double()
    kept = quantizer.straighten(z)
    projected = centred @ quantizer.projection.double().t()
    assert torch.allclose(kept, projected, atol=1e-2 * float(projected.abs().max()))
    decoded = quantizer.straighten(quantizer.decode(quantizer.encode(x)))
    error = (centred - decoded @ quantizer.projection.double()).square().sum()
    assert report['error'] == pytest.approx(float(error / centred.square().sum()), rel=1e-2)


def test_leading_axes(monkeypatch):
    x = features(200, 40, rank=8)
    exact = tokenizer(max_dim=6).report(make_data(text=x))['modalities']['text']
    monkeypatch.setattr('motor_geo.data.quantize.EXACT_WIDTH', 20)
    state = torch.get_rng_state()
    transforms = [tokenizer(max_dim=6, seed=seed) for seed in (0, 0, 1)]
    out = [transform(make_data(text=x))['item'].token_id for transform in transforms]
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(out[0], out[1])
    axes = [transform.quantizers['text'].projection for transform in transforms]
    assert torch.equal(axes[0], axes[2])  # The seed is that of k-means.
    assert torch.allclose(axes[0] @ axes[0].t(), torch.eye(6), atol=1e-5)
    report = transforms[0].report(make_data(text=x))['modalities']['text']
    assert report['kept_variance'] == pytest.approx(exact['kept_variance'], rel=1e-4)
    assert report['kept_variance'] <= exact['kept_variance'] + 1e-9
    z = torch.cov(transforms[0].quantizers['text'].projection @ x.t()).trace()
    assert report['kept_variance'] == pytest.approx(float(z / torch.cov(x.t()).trace()), rel=1e-4)
    assert report['error'] == pytest.approx(exact['error'], rel=0.05)


def test_leading_axes_of_a_slow_decay():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(80, 80, dtype=torch.float64, generator=generator)).Q
    value = torch.arange(1, 81, dtype=torch.float64) ** -0.5
    matrix = basis * value @ basis.t()
    axes = quantize._leading_axes(matrix, 8)
    kept = float(((axes @ matrix) * axes).sum() / value[:8].sum())
    assert 0.97 < kept < 1 + 1e-9


def test_import_of_faiss_leaves_the_environment(monkeypatch):
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    assert import_faiss() is faiss and 'OMP_WAIT_POLICY' not in os.environ
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    assert import_faiss() is faiss and os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'


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
        with pytest.raises(ValueError, match=r'tokens.pt. is not a saved tokenizer'):
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
    with pytest.raises(ImportError, match='pip install faiss-cpu'):
        tokenizer().fit(data)


def test_defaults_of_fit_quantizer():
    r"""A direct call fits what the transform fits: above all, it does not
    rotate thousands of columns.
    """
    ours = inspect.signature(fit_quantizer).parameters
    theirs = inspect.signature(OPQTokenizer.__init__).parameters
    shared = [key for key in ours if key in theirs and key != 'num_tokens']
    assert 'max_dim' in shared and len(shared) >= 7
    assert {key: ours[key].default for key in shared} == {
        key: theirs[key].default for key in shared
    }


def test_cache(monkeypatch):
    data = make_data(text=features(60, 10))
    expected = tokenizer(cache=True)(data)['item'].token_id
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return fit_quantizer(*args, **kwargs)

    monkeypatch.setattr('motor_geo.data.tokenize.fit_quantizer', counted)
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
        patch.setattr('motor_geo.data.tokenize.Quantizer.encode', broken)
        assert torch.equal(tokenizer(cache=True)(data)['item'].token_id, expected)
        for graph, kwargs in [(other, {}), (data, {'cache': False})]:
            with pytest.raises(AssertionError):
                tokenizer(**{'cache': True, **kwargs}).fit(data)(graph)
        transform = tokenizer(cache=True).fit(data)
        transform.quantizers['text'].centroids.add_(1)
        with pytest.raises(AssertionError):
            transform(data)


def test_report():
    x = features(200, 8)
    x[1] = x[0]
    data = make_data(text=x, image=features(200, 6))
    transform = tokenizer(2)
    report = transform.report(data, k=5, num_samples=50)
    token_id = transform(data)['item'].token_id.tolist()
    rows = [tuple(row) for row in token_id]
    assert report['num_items'] == 200
    assert report['collisions'] == sum(rows.count(row) > 1 for row in rows)
    text = report['modalities']['text']
    part = [row[2:] for row in rows]
    assert text['collisions'] == sum(part.count(row) > 1 for row in part)
    assert text['duplicates'] == 2 and text['kept_variance'] == 1 and text['num_tokens'] == 2
    for t in range(2):
        counts = np.bincount([row[2 + t] for row in rows])
        share = counts[counts > 0] / 200
        assert text['perplexity'][t] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
        assert text['used'][t] == (counts > 0).sum()
    quantizer = transform.quantizers['text']
    codes = quantizer.encode(x)
    decoded = quantizer.decode(codes) @ quantizer.rotation.double()
    error = (decoded - x).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert text['error'] == pytest.approx(float(error), rel=1e-4)
    assert 0.2 < text['neighbors'] < 1
    table = transform.report_table(data)
    assert len(table.splitlines()) == 4
    assert f'{report["collisions"]} of 200 items' in table


def test_report_of_perfect_tokens():
    x = features(64, 6)
    transform = tokenizer(1, 64, method='pq').fit(make_data(text=x))
    report = transform.report(make_data(text=x))['modalities']['text']
    assert report['error'] == pytest.approx(0, abs=1e-6)
    assert report['neighbors'] == 1 and report['collisions'] == 0
    assert report['perplexity'] == pytest.approx([64])


def test_setting_errors():
    for kwargs, match in [
        ({'num_tokens': 0}, 'num_tokens must be at least 1'),
        ({'num_tokens': {'text': -1}}, 'num_tokens must be at least 1'),
        ({'codebook_size': 100}, 'power of two between 2 and 65536, got 100'),
        ({'codebook_size': 1}, 'power of two'),
        ({'codebook_size': 2**17}, 'power of two'),
        ({'method': 'vq'}, "method must be one of opq, pq, rq, got 'vq'"),
        ({'init': 'zero'}, 'init must be one of'),
        ({'fit_on': 'test'}, 'fit_on must be one of'),
        ({'num_iters': -1}, 'num_iters=-1 is too small'),
        ({'max_dim': 0}, 'max_dim must be at least 1'),
    ]:
        with pytest.raises(ValueError, match=match):
            tokenizer(**kwargs)
    with pytest.raises(RuntimeError, match='before the tokenizer is fitted'):
        _ = tokenizer().num_tokens_dict
    with pytest.raises(RuntimeError, match='not fitted yet'):
        tokenizer().encode({'text': torch.zeros(1, 2)})


def test_data_errors():
    x = features(60, 6)
    with pytest.raises(ValueError, match='no item features'):
        tokenizer()(make_data())
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


def test_unique_rows():
    x = np.array([[1, 2], [0, 0], [1, 2], [2, 1], [0, 0]])
    first, inverse = unique_rows(x)
    assert first.tolist() == [0, 1, 3] and inverse.tolist() == [0, 1, 0, 2, 1]


@pytest.mark.skipif(not osp.isdir(DATA), reason='needs the real data')
def test_real_data():
    x = torch.from_numpy(np.load(osp.join(DATA, 'tiktok', 'image_feat.npy')))
    report = tokenizer(4, 256, num_iters=2).report(make_data(image=x))['modalities']['image']
    assert 0.35 < report['error'] < 0.43
    assert min(report['used']) == 256


def test_fewer_rows_than_columns():
    r"""faiss corrupts the heap when it trains a rotation on fewer rows than
    columns; in a process of its own, since that kills it.
    """
    program = """
import torch
from motor_geo.data.quantize import fit_quantizer
torch.manual_seed(0)
for rows in (20, 60, 100):
    x = torch.randn(rows, 128).numpy()
    quantizer = fit_quantizer(
        x, num_tokens=2, codebook_size=16, method='opq', init='pca', center=False,
        normalize=False, num_iters=5, max_dim=None, seed=0, name='text',
    )
    error = (quantizer.transform(quantizer.prepare(torch.from_numpy(x)))
             - quantizer.decode(quantizer.encode(x))).square().sum()
    assert error < 0.9 * torch.from_numpy(x).square().sum(), (rows, float(error))
print('done')
"""
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == 'done'
