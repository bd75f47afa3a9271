import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.functional.feature_blocks import (
    block_linear,
    concat_linear,
    linear_twice,
    products,
    spectral_blocks,
)

N, WIDTHS = 300, [7, 5, 4]  # More rows than a block of the projection kernel.


def rand(*size, dtype=torch.float64):
    return torch.randn(*size, dtype=dtype).requires_grad_()


def features(dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(N, width).to(dtype) for width in WIDTHS]


def check(function, *args, leaves, **kwargs):
    r"""Values and gradients of the kernel are those of the reference."""
    outs = [function(*args, **kwargs), function.reference(*args, **kwargs)]
    outs = [list(out) if isinstance(out, list) else [out] for out in outs]
    upstream = [torch.randn_like(out) for out in outs[1]]
    torch.testing.assert_close(*outs)
    grads = [torch.autograd.grad(out, leaves, upstream) for out in outs]
    torch.testing.assert_close(*grads)
    return outs[1]


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_concat_linear(dtype):
    xs, weight, bias = features(dtype), rand(6, sum(WIDTHS)), rand(6)
    out = check(concat_linear, xs, weight, bias, leaves=[weight, bias])[0]
    x = torch.cat(xs, dim=1).double()
    torch.testing.assert_close(out, torch.einsum('nf,df->nd', x, weight) + bias)


def test_linear_twice():
    x, args = features()[0], (rand(6, 7), rand(6), rand(3, 6), rand(3))
    out = check(linear_twice, x, *args, leaves=args)[0]
    w1, b1, w2, b2 = args
    torch.testing.assert_close(out, torch.stack([w2 @ (w1 @ row + b1) + b2 for row in x]))
    trained = x.clone().requires_grad_()
    check(linear_twice, trained, *args, leaves=[trained, *args])


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_products(dtype):
    x, matrices = features(dtype)[0], [rand(7, 3), rand(7, 1), rand(7, 4)]
    out = check(products, x, matrices, leaves=matrices)
    for value, matrix in zip(out, matrices):
        torch.testing.assert_close(value, torch.einsum('nf,fd->nd', x.double(), matrix))


def test_block_linear():
    x = rand(N, sum(WIDTHS))
    weights, biases = [rand(2, width) for width in WIDTHS], [rand(2) for _ in WIDTHS]
    out = check(block_linear, x, weights, biases, leaves=[x, *weights, *biases])[0]
    torch.testing.assert_close(out[:, 2:4], F.linear(x[:, 7:12], weights[1], biases[1]))
    x = torch.zeros(2, sum(WIDTHS), dtype=torch.float64)
    x[:, 12:] = torch.inf  # One block does not reach into another in the plain form.
    assert block_linear.reference(x, weights, biases)[:, :4].isfinite().all()


@pytest.mark.parametrize('across_rows', [False, True])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_spectral_blocks(dtype, across_rows):
    xs, weights, shared = features(dtype), [rand(3, w) for w in WIDTHS], rand(4, sum(WIDTHS))
    args = xs, weights, shared, across_rows
    out = check(spectral_blocks, *args, leaves=[*weights, shared])

    def basis(size):
        n = torch.arange(size, dtype=torch.float64)
        out = (torch.pi * (2 * n + 1) * n.view(-1, 1) / (2 * size)).cos() * (2 / size) ** 0.5
        out[0] /= 2**0.5
        return out

    spectrum = torch.cat([x.double() @ basis(x.size(1)).t() for x in xs], dim=1)
    spectrum = basis(N) @ spectrum if across_rows else spectrum
    torch.testing.assert_close(out[-1], spectrum @ shared.t())
    torch.testing.assert_close(out[1], xs[1].double() @ weights[1].t())


def test_compiled_code_takes_the_plain_form(monkeypatch):
    x, args = features()[0], (rand(6, 7), rand(6), rand(3, 6), rand(3))
    expected = linear_twice.reference(x, *args)
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert torch.equal(linear_twice(x, *args), expected)
