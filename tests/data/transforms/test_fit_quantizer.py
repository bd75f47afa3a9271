import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import motor_geo.data.transforms.fit_quantizer as fit_module
from motor_geo.data.transforms.fit_quantizer import _leading_axes, fit_quantizer, import_faiss
from motor_geo.data.transforms.opq_tokenizer import OPQTokenizer
from motor_geo.data.transforms.quantizer import Quantizer
from tests import forks
from tests.data.token_cases import CASES, features, make_data, tokenizer

faiss = pytest.importorskip('faiss')
ROOT = Path(__file__).parents[3]


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


def test_constant_features():
    with pytest.warns(UserWarning, match='1 distinct'):
        transform = tokenizer().fit(make_data(text=torch.zeros(20, 6)))
    assert transform.quantizers['text'].centroids.isfinite().all()
    assert len(transform.encode({'text': torch.zeros(20, 6)}).unique(dim=0)) == 1
    assert transform.report(make_data(text=torch.zeros(20, 6)))['modalities']['text']['error'] == 0


def test_reduction():
    x = features(100, 30, rank=3)
    transform = tokenizer(max_dim=3)
    report = transform.report(make_data(text=x))['modalities']['text']
    centered = (x - x.mean(dim=0)).double()
    value = torch.linalg.svdvals(centered).square()
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
    centered = (x - x.mean(dim=0)).double()
    kept = quantizer.straighten(z)
    projected = centered @ quantizer.projection.double().t()
    assert torch.allclose(kept, projected, atol=1e-2 * float(projected.abs().max()))
    decoded = quantizer.straighten(quantizer.decode(quantizer.encode(x)))
    error = (centered - decoded @ quantizer.projection.double()).square().sum()
    assert report['error'] == pytest.approx(float(error / centered.square().sum()), rel=1e-2)


def test_leading_axes(monkeypatch):
    x = features(200, 40, rank=8)
    exact = tokenizer(max_dim=6).report(make_data(text=x))['modalities']['text']
    monkeypatch.setattr('motor_geo.data.transforms.fit_quantizer.EXACT_WIDTH', 20)
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
    axes = _leading_axes(matrix, 8)
    kept = float(((axes @ matrix) * axes).sum() / value[:8].sum())
    assert 0.97 < kept < 1 + 1e-9


def test_import_of_faiss_leaves_the_environment(monkeypatch):
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    assert import_faiss() is faiss and 'OMP_WAIT_POLICY' not in os.environ
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    assert import_faiss() is faiss and os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'


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


def test_fewer_rows_than_columns():
    r"""faiss corrupts the heap when it trains a rotation on fewer rows than
    columns; in a process of its own, since that kills it.
    """
    program = """
import torch
from motor_geo.data.transforms.fit_quantizer import fit_quantizer
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
    result = forks.run('-c', program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == 'done'


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


THREADS = """
import sys
import numpy as np, torch
from motor_geo.data.transforms.fit_quantizer import fit_quantizer
from motor_geo.data.transforms.interaction_svd import InteractionSVD
from motor_geo.data.transforms.knn import knn_graph_cosine
from motor_geo.utils.cache import fingerprint
from tests.data.transforms.test_interaction_svd import random_data

torch.set_num_threads(int(sys.argv[1]))
rng = np.random.default_rng(0)
kinds = rng.standard_normal((30, 64))[rng.integers(30, size=9000)]
x = (kinds + rng.random((9000, 64))).astype('f4')
for kind in ({}, {'method': 'rq'}, {'whiten': True, 'max_dim': 16}):
    rows = x if not kind else x[:2000]
    print(fingerprint(fit_quantizer(rows, 4, 64, num_iters=2, **kind).state_dict()))
data = random_data(500, 400)[0]
print(fingerprint(InteractionSVD(20, cache=False)(data)['item'].x_behavior))
for rows, width in ((200, 2048), (20, 2048), (1025, 128)):
    print(fingerprint(knn_graph_cosine(rng.standard_normal((rows, width)).astype('f4'), 5)))
"""


def test_threads_change_nothing():
    found = []
    for threads in ('1', '3'):
        names = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
        env = {**os.environ, **dict.fromkeys(names, threads)}
        command = [sys.executable, '-c', THREADS, threads]
        out = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(out.stdout.split())
    assert found[0] == found[1] and len(set(found[0])) == 7


@pytest.mark.parametrize('method', ['opq', 'pq', 'rq'])
@pytest.mark.parametrize('options', [{}, {'normalize': True, 'center': True}, {'whiten': True}])
def test_tokens_are_free_of_scale(method, options):
    x = np.random.default_rng(0).standard_normal((80, 12))
    fitted = fit_quantizer(x.astype(np.float32), 3, 8, method=method, **options)
    assert fitted.unit == 1 and 'unit' not in fitted.state_dict()
    expected = fitted.encode(x.astype(np.float32))
    for exponent in (-100, -60, 40, 60, 120):
        scaled = (x.astype(np.float32) * np.float64(2.0) ** exponent).astype(np.float32)
        other = fit_quantizer(scaled, 3, 8, method=method, **options)
        assert torch.equal(other.encode(scaled), expected), exponent
        state = other.state_dict()
        assert all(value.isfinite().all() for value in state.values())
        again = Quantizer.from_state_dict(state, other.center, other.normalize, other.residual)
        assert again.unit == other.unit and torch.equal(again.encode(scaled), expected)


def test_denormal_features():
    x = np.random.default_rng(0).standard_normal((80, 12))
    tiny = (x * 1e-39).astype(np.float32)
    codes = fit_quantizer(tiny, 3, 8).encode(tiny)
    assert len(codes.unique(dim=0)) > 40


def test_a_huge_row_is_named_and_ends_nothing():
    x = np.random.default_rng(0).standard_normal((80, 12)).astype(np.float32)
    x[7] = 1e30
    with pytest.warns(UserWarning, match=r"'text': a row holds the value 1e\+30, and half of the"):
        codes = fit_quantizer(x, 3, 8, name='text').encode(x)
    assert codes.shape == (80, 3)
    zero = np.zeros((80, 12), np.float32)
    with pytest.warns(UserWarning, match='distinct rows'):
        assert fit_quantizer(zero, 3, 8).unit == 1


def test_seeds_of_any_size():
    x = np.random.default_rng(0).standard_normal((80, 12)).astype(np.float32)
    seeds = (0, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -1)
    states = [fit_quantizer(x, 3, 8, 'pq', seed=seed).centroids for seed in seeds]
    for i, one in enumerate(states):
        assert not any(torch.equal(one, other) for other in states[:i])
    assert torch.equal(states[3], fit_quantizer(x, 3, 8, 'pq', seed=2**40).centroids)


def test_why_faiss_cannot_be_loaded(monkeypatch):
    def fail():
        raise ImportError('libgomp.so.1: cannot open shared object file')

    monkeypatch.setattr(fit_module, 'import_faiss', fail)
    with pytest.raises(ImportError, match='cannot be loaded: libgomp.so.1: cannot open'):
        fit_quantizer(np.eye(8, dtype=np.float32), 2, 8)


def test_values_beyond_single_precision_are_named():
    x = np.random.default_rng(0).standard_normal((80, 12))
    fitted = tokenizer(2, codebook_size=8).fit(x)
    x[7, 3] = 1e39
    with pytest.raises(ValueError, match=r'row 7 holds values beyond 3.4e\+38'):
        tokenizer(2, codebook_size=8).fit(x)
    with pytest.raises(ValueError, match='row 7 holds values beyond'):
        fitted.encode(x)
