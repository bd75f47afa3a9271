import pytest
import torch

from motor_geo.nn.conv.dot_attention import DotAttention
from motor_geo.nn.functional.edges import edge_dot
from motor_geo.nn.graph import sorted_edge_index


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randperm(5 * 7, generator=generator)[:18]
    edge_index = torch.stack([pairs // 7, pairs % 7])
    edge_index = edge_index[:, edge_index[1] != 6]  # Target 6 has no sources.
    x = [torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (5, 7)]
    return x, edge_index


def naive(x_src, x_dst, edge_index):
    out, alpha = torch.zeros_like(x_dst), torch.zeros(edge_index.size(1), dtype=x_src.dtype)
    for t in range(x_dst.size(0)):
        edges = (edge_index[1] == t).nonzero().flatten()
        if edges.numel() > 0:
            sources = x_src[edge_index[0, edges]]
            alpha[edges] = torch.softmax(sources @ x_dst[t], dim=0)
            out[t] = alpha[edges] @ sources
    return out, alpha


def test_dot_attention_equals_naive_loop_in_all_formats(case):
    (x_src, x_dst), edge_index = case
    conv = DotAttention()
    assert str(conv) == 'DotAttention()'
    expected, expected_alpha = naive(x_src, x_dst, edge_index)
    assert not expected[6].any()

    out, alpha = conv((x_src, x_dst), edge_index)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(alpha, expected_alpha)

    fast, perm = sorted_edge_index(edge_index, 5, 7)
    out, alpha = conv((x_src, x_dst), fast)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(alpha, expected_alpha[perm])


def test_dot_attention_gradients_agree(case):
    x, edge_index = case
    weight = torch.randn(7, 3, dtype=torch.float64)
    gradients = []
    for edges in (edge_index, sorted_edge_index(edge_index, 5, 7)[0]):
        leaves = [value.clone().requires_grad_() for value in x]
        out, alpha = DotAttention()(tuple(leaves), edges)
        loss = (out * weight).sum() + alpha.square().sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for fast, plain in zip(*gradients):
        torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize('mkl', [True, False])
def test_edge_dot_gradcheck(case, mkl, monkeypatch):
    if mkl and not torch.backends.mkl.is_available():
        pytest.skip('needs MKL')
    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: mkl)
    x, edge_index = case
    edge_index, _ = sorted_edge_index(edge_index, 5, 7)
    leaves = [value.clone().requires_grad_() for value in x]
    source, target = edge_index.as_tensor()
    expected = torch.stack([x[0][s] @ x[1][t] for s, t in zip(source, target)])
    torch.testing.assert_close(edge_dot(*leaves, edge_index).detach(), expected)
    assert torch.autograd.gradcheck(lambda a, b: edge_dot(a, b, edge_index), leaves)


def test_dot_attention_without_edges(case):
    x, _ = case
    for edge_index in (
        torch.empty(2, 0).long(),
        sorted_edge_index(torch.empty(2, 0).long(), 5, 7)[0],
    ):
        leaves = [value.clone().requires_grad_() for value in x]
        out, alpha = DotAttention()(tuple(leaves), edge_index)
        assert alpha.shape == (0,) and torch.equal(out, torch.zeros(7, 3, dtype=torch.float64))
        out.sum().backward()
        assert not leaves[0].grad.any()


def test_dot_attention_gradcheck(case):
    x, edge_index = case
    edge_index, _ = sorted_edge_index(edge_index, 5, 7)
    leaves = [value.clone().requires_grad_() for value in x]
    assert torch.autograd.gradcheck(lambda *x: DotAttention()(x, edge_index), leaves)


def test_dot_attention_of_given_products(case):
    x, edge_index = case
    for edges in (edge_index, sorted_edge_index(edge_index, 5, 7)[0]):
        source, target = edges.as_tensor() if hasattr(edges, 'as_tensor') else edges
        logit = 1000 + (x[0][source] * x[1][target]).sum(dim=-1)  # The shift cancels out.
        expected = DotAttention()(x, edges)
        for a, b in zip(DotAttention()(x, edges, logit), expected):
            torch.testing.assert_close(a, b)
