import pytest
import torch

from motor_geo.nn.functional.autocast import Function, full_precision


class Product(Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight.t(), x.t() @ grad


@full_precision
def gram(x, *, scale):
    return scale * (x @ x.t())


@pytest.mark.parametrize('inside', [False, True])
def test_both_passes_are_exact_under_autocast(inside):
    torch.manual_seed(0)
    x, weight = torch.randn(5, 300), torch.randn(300, 4, requires_grad=True)
    (x @ weight).square().sum().backward()
    expected, weight.grad = weight.grad, None
    with torch.autocast('cpu', torch.bfloat16):
        assert not torch.equal(x @ weight, (x.double() @ weight.double()).float())
        out = Product.apply(x, weight)
        assert out.dtype == torch.float32
        if inside:  # Where one should not, but can, call it.
            out.square().sum().backward()
    if not inside:
        out.square().sum().backward()
    torch.testing.assert_close(weight.grad, expected)


def test_half_precision_is_converted_only_under_autocast():
    torch.manual_seed(0)
    x = torch.randn(4, 100)
    half = x.bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        out = gram(x=half, scale=2)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, 2 * (half.double() @ half.double().t()).float())
        assert gram(x.double(), scale=1).dtype == torch.float64
        assert torch.is_autocast_enabled('cpu')
    assert gram(half, scale=1).dtype == torch.bfloat16
    assert gram.__name__ == 'gram'


def test_half_precision_keeps_its_gradient():
    x = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        out = gram(x, scale=1)
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert torch.equal(x.grad, torch.full((2, 3), 4.0, dtype=torch.bfloat16))
