import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.functional import rows
from motor_geo.nn.functional.rows import (
    checkpoint_rows,
    frobenius_norm,
    mean_square,
    normalize_rows,
    project,
    row_norm,
    second_moments,
)


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64)
    x[1, 2] = 0
    x[2, 0] *= 1e-5
    return x


def gradients(f, x, weight):
    x = x.clone().requires_grad_()
    out = f(x)
    return out.detach(), torch.autograd.grad((out * weight).sum(), x)[0]


@pytest.mark.parametrize('eps', [1e-12, 1e-3])
def test_normalize_rows_equals_normalize(x, eps):
    weight = torch.randn_like(x)
    actual = gradients(lambda x: normalize_rows(x, eps), x, weight)
    expected = gradients(lambda x: F.normalize(x, dim=-1, eps=eps), x, weight)
    for a, b in zip(actual, expected):
        torch.testing.assert_close(a, b)


def test_row_norm_equals_vector_norm(x):
    weight = torch.randn(6, 3, dtype=torch.float64)
    actual = gradients(row_norm, x, weight)
    expected = gradients(lambda x: torch.linalg.vector_norm(x, dim=-1), x, weight)
    for a, b in zip(actual, expected):
        torch.testing.assert_close(a, b)
    assert not actual[1][1, 2].any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_frobenius_norm_has_the_bits_of_vector_norm(x, dtype):
    x, weight = x.to(dtype), torch.tensor(0.7, dtype=dtype)
    for a, b in zip(*(gradients(f, x, weight) for f in (frobenius_norm, torch.linalg.vector_norm))):
        assert torch.equal(a, b)


def test_frobenius_norm_of_zeros_has_no_gradient():
    for shape in [(3, 4), (0, 4)]:
        value, grad = gradients(frobenius_norm, torch.zeros(shape), torch.tensor(1.0))
        assert value == 0 and grad.shape == shape and not grad.any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('size', [0, 7, 1000])
def test_second_moments_equal_products(dtype, size):
    x, other = torch.randn(2, size, 64, generator=torch.Generator().manual_seed(0), dtype=dtype)

    def loss(x, moments):
        gram, trace = moments(x)
        return 0.3 * (gram * (other.t() @ other)).sum() + 0.7 * trace

    weight, forms = torch.ones((), dtype=dtype), (second_moments, second_moments.reference)
    actual, expected = (gradients(lambda x: loss(x, f), x, weight) for f in forms)  # noqa: B023
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    for a, b in zip(actual, expected):
        atol = rtol * float(b.abs().max()) if b.numel() > 0 else 0
        torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


def test_second_moments_take_any_gradient(x):
    x, weight = x.flatten(0, 1), torch.randn(4, 4, dtype=torch.float64)
    for index in (0, 1):
        actual = gradients(lambda x: second_moments(x)[index], x, weight)  # noqa: B023
        expected = gradients(lambda x: second_moments.reference(x)[index], x, weight)  # noqa: B023
        for a, b in zip(actual, expected):
            torch.testing.assert_close(a, b)


def test_mean_square(x):
    weight = torch.tensor(2.0, dtype=torch.float64)
    actual = gradients(mean_square, x, weight)
    expected = gradients(lambda x: x.square().mean(), x, weight)
    for a, b in zip(actual, expected):
        torch.testing.assert_close(a, b)


def test_mean_square_of_many_rows_in_single_precision():
    x = torch.rand(30000, 64, generator=torch.Generator().manual_seed(0))
    expected = x.double().square().mean().float()
    torch.testing.assert_close(mean_square(x), expected, atol=0, rtol=2e-6)


def test_row_functions_have_first_derivatives(x):
    x = x[3:].clone().requires_grad_()
    for f in (normalize_rows, row_norm, mean_square):
        assert torch.autograd.gradcheck(f, (x,))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('with_bias', [False, True])
def test_project_converts_in_blocks(monkeypatch, dtype, with_bias):
    monkeypatch.setattr(rows, 'BLOCK', 4)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 5, generator=generator).to(dtype)
    weight = torch.randn(3, 5, generator=generator, requires_grad=True)
    bias = torch.randn(3, generator=generator, requires_grad=True) if with_bias else None
    upstream = torch.randn(11, 3, generator=generator)
    parameters = [weight, bias] if with_bias else [weight]
    outs = [project(x, weight, bias), F.linear(x.float(), weight, bias)]
    grads = [torch.autograd.grad(out, parameters, upstream) for out in outs]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*grads)
    seen = []
    monkeypatch.setattr(Tensor, 'to', lambda t, d: seen.append(len(t)) or t.type(d))
    project(x, weight).sum().backward()
    assert seen == [4, 4, 3] * 2  # Never the whole table.


def test_project_trains_features_of_another_precision():
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    project(x, torch.ones(3, 5)).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((4, 5), 3.0, dtype=torch.float64))


def test_checkpoint_rows(monkeypatch):
    lin, calls = torch.nn.Linear(4, 3).double(), []
    x = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)

    factors = torch.rand(10, 1, dtype=torch.float64)

    def function(rows, nothing, factors):
        assert nothing is None
        calls.append(rows.size(0))
        return F.leaky_relu_(lin(rows)).square() * factors

    def run():
        out = checkpoint_rows(function, x, None, factors)
        return out.detach(), *torch.autograd.grad(out.sum(), [x, *lin.parameters()])

    expected = run()
    assert calls == [10]
    monkeypatch.setattr(rows, 'LONG', 4)
    torch.testing.assert_close(run(), expected)
    assert sorted(calls[1:]) == [2, 2, 4, 4, 4, 4]  # Forward, and again backward.
    with torch.no_grad():
        torch.testing.assert_close(checkpoint_rows(function, x, None, factors), expected[0])
    assert calls[7:] == [10]
