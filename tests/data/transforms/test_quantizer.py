import os.path as osp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.data.transforms.quantizer import Quantizer
from tests.data.token_cases import CASES, features, make_data, tokenizer

GOLDEN = osp.join(osp.dirname(__file__), '..', '..', 'golden', 'tokens.npz')


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


def test_padding():
    x = features(80, 7)
    for method in ['opq', 'pq']:
        transform = tokenizer(3, method=method).fit(make_data(text=x))
        assert transform.quantizers['text'].centroids.shape == (3, 16, 3)
        z = transform.quantizers['text'].transform(x.double())
        assert z.shape == (80, 9)
        assert torch.allclose(z.norm(dim=1), x.double().norm(dim=1), rtol=1e-5)
