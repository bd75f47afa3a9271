import pytest
import torch

from motor_geo.nn.functional import matmul
from motor_geo.nn.functional.matmul import linear, linear_grad
from motor_geo.nn.functional.rows import project

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.skipif(not ONEDNN, reason='no oneDNN'))]
)
def kernel(request, monkeypatch):
    monkeypatch.setattr(matmul, '_slow_mkl', lambda: request.param)


def random(*size, dtype=torch.float32, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('rows', [0, 1, 256, 300])
def test_products(kernel, dtype, rows):
    # Weights may be columns of a wider table, and features its rows.
    x, weight = random(400, 70, dtype=dtype)[:rows], random(5, 90, dtype=dtype, seed=1)[:, 7:77]
    expected = (x.double() @ weight.double().t()).to(dtype)
    torch.testing.assert_close(linear(x, weight), expected, rtol=1e-5, atol=1e-5)
    for width in (5, 90):
        grad = random(rows, width, dtype=dtype, seed=2)
        expected = (grad.double().t() @ x.double()).to(dtype)
        torch.testing.assert_close(linear_grad(grad, x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_projection_and_its_gradient(kernel, dtype):
    x, upstream = random(300, 70).to(dtype), random(300, 5, seed=2)
    weight, bias = random(5, 70, seed=1).requires_grad_(), random(5, seed=3).requires_grad_()
    out = project(x, weight, bias)
    torch.testing.assert_close(out, x.float() @ weight.t() + bias, rtol=1e-5, atol=1e-5)
    actual = torch.autograd.grad(out, (weight, bias), upstream)
    expected = upstream.t() @ x.float(), upstream.sum(dim=0)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


def test_projection_of_trained_features(kernel):
    x, weight = random(300, 70).requires_grad_(), random(5, 70, seed=1).requires_grad_()
    bias, upstream = random(5, seed=2).requires_grad_(), random(300, 5, seed=3)
    actual = torch.autograd.grad(project(x, weight, bias), (x, weight, bias), upstream)
    expected = upstream @ weight, upstream.t() @ x, upstream.sum(dim=0)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ('vendor', 'capability', 'expected'),
    [
        ('AuthenticAMD', 'AVX512', ONEDNN),
        ('AuthenticAMD', 'AVX2', False),
        ('GenuineIntel', 'AVX512', False),
    ],
)
def test_where_onednn_is_used(monkeypatch, vendor, capability, expected):
    matmul._slow_mkl.cache_clear()
    monkeypatch.setattr(matmul, '_vendor', lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: True)
    assert matmul._slow_mkl() is expected
    matmul._slow_mkl.cache_clear()
    assert not matmul.prefers_onednn(random(3, 3, dtype=torch.float64))
