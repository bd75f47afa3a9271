import math

import pytest
import torch

from motor_geo.nn.functional.contrast import row_log_sum_exp, two_view_contrast


def random(*size, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=dtype)


def dense(z, y, temperature):
    z, y = z / z.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    within, across = (z @ z.t() / temperature).exp(), (z @ y.t() / temperature).exp()
    within = within - within.diag().diag()
    return -(across.diag() / (within.sum(dim=1) + across.sum(dim=1))).log().mean()


@pytest.mark.parametrize('entries', [1, 7 * 2 * 60, 10**9])
@pytest.mark.parametrize('temperature', [0.5, 0.1])
def test_two_view_contrast_equals_the_dense_form(entries, temperature):
    z, y = random(60, 5).requires_grad_(), random(60, 5, seed=1).requires_grad_()
    actual = two_view_contrast(z, y, temperature, entries)
    expected = dense(z, y, temperature)
    torch.testing.assert_close(actual, expected)
    # Scaled, as the gradient is computed before the scale is known.
    for a, e in zip(
        torch.autograd.grad(3 * actual, (z, y)), torch.autograd.grad(3 * expected, (z, y))
    ):
        assert e.abs().max() > 1e-3
        torch.testing.assert_close(a, e)
    with torch.no_grad():
        torch.testing.assert_close(two_view_contrast(z, y, temperature, entries), expected)


def test_two_view_contrast_by_hand():
    z = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    # Row 0: to z_1 0, to y 1 and 1. Row 1: to z_0 0, to y 0 and 0.
    expected = (math.log(1 + 2 * math.e) - 1 + math.log(3)) / 2
    assert float(two_view_contrast(z, y, 1.0)) == pytest.approx(expected, rel=1e-12)


def test_two_view_contrast_gradient_of_one_view():
    z, y = random(9, 4), random(9, 4, seed=1)
    assert torch.autograd.gradcheck(lambda z: two_view_contrast(z, y, 0.5, 40), z.requires_grad_())
    z = z.detach()
    assert torch.autograd.gradcheck(lambda y: two_view_contrast(z, y, 0.5, 40), y.requires_grad_())


def test_two_view_contrast_of_a_view_with_itself():
    z = random(9, 4).requires_grad_()
    (actual,) = torch.autograd.grad(two_view_contrast(z, z, 0.5, 40), z)
    (expected,) = torch.autograd.grad(dense(z, z, 0.5), z)
    torch.testing.assert_close(actual, expected)


def test_two_view_contrast_does_not_overflow():
    z, y = (random(20, 5, seed=s, dtype=torch.float32).requires_grad_() for s in (0, 1))
    loss = two_view_contrast(z, y, 0.005)  # exp(1 / 0.005) is infinite.
    expected = dense(z.double(), y.double(), 0.005).float()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    loss.backward()
    assert z.grad.isfinite().all() and y.grad.isfinite().all()


def test_two_view_contrast_memory_is_bounded():
    sizes = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                o.numel()
                for o in torch.utils._pytree.tree_leaves(out)
                if isinstance(o, torch.Tensor)
            )
            return out

    z = random(300, 4).requires_grad_()
    with Spy():
        two_view_contrast(z, random(300, 4, seed=1), 0.5, entries=6000).backward()
    assert 6000 <= max(sizes) <= 6000 + 600


@pytest.mark.parametrize('entries', [None, 1, 25])
def test_log_denominators_of_every_anchor(entries):
    torch.manual_seed(0)
    a, p = (torch.randn(n, 3, dtype=torch.double, requires_grad=True) for n in (7, 11))
    weight = torch.rand(7, dtype=torch.double)
    expected = (a @ p.t()).exp().sum(dim=1).log()
    out = row_log_sum_exp(a, p, entries)
    torch.testing.assert_close(out, expected)
    for own, other in zip(*(torch.autograd.grad(weight @ y, (a, p)) for y in (out, expected))):
        torch.testing.assert_close(own, other)
    assert row_log_sum_exp(a, p[:0], entries).eq(-math.inf).all()
