import math

import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.hyperedges import contrast_all, shares


def test_shares():
    torch.manual_seed(0)
    logits = (3 * torch.randn(50, 4, dtype=torch.float64)).requires_grad_()
    out, expected = shares(logits), shares.reference(logits)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(out, logits.exp() / logits.exp().sum(dim=1, keepdim=True))
    upstream = torch.randn_like(out)
    grads = [torch.autograd.grad(y, logits, upstream) for y in (out, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('function', [shares, shares.reference])
def test_shares_are_never_subnormal(function):
    logits = torch.tensor([[0.0, -90.0, -50.0, -40.0]], requires_grad=True)
    share = function(logits)
    # exp(-90) is subnormal; of exp(-50) at least products would be.
    assert share.tolist()[0] == [1.0, 0.0, 0.0, pytest.approx(math.exp(-40), rel=1e-5, abs=0)]
    share.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize('function', [contrast_all, contrast_all.reference])
@pytest.mark.parametrize('num_hyperedges', [3, 5, 9])  # Fewer than channels, and more.
def test_contrast_all_against_a_plain_formula(num_hyperedges, function):
    torch.manual_seed(0)
    a = torch.randn(23, 5, dtype=torch.float64).requires_grad_()
    share = torch.rand(23, num_hyperedges, dtype=torch.float64)
    share[4] = 0.0
    share.requires_grad_()
    lat = torch.randn(num_hyperedges, 5, dtype=torch.float64).requires_grad_()
    index = torch.tensor([3, 3, 0, 22, 7, 4])
    nodes = distinct(index)
    loss = function(a[nodes.node], share, lat, nodes, 0.2)
    logits = F.normalize(a) @ F.normalize(share @ lat).t() / 0.2
    expected = -(logits.softmax(dim=1)[index, index].log()).sum()
    torch.testing.assert_close(loss, expected)
    actual = torch.autograd.grad(3 * loss, [a, share, lat])
    for x, y in zip(actual, torch.autograd.grad(3 * expected, [a, share, lat])):
        torch.testing.assert_close(x, y)
