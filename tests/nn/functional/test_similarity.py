import pytest
import torch

from motor_geo.nn.conv import propagate
from motor_geo.nn.functional.similarity import (
    block_rows,
    merge_edges,
    neighbor_edges,
    row_sum_norm,
    top_k_cosine,
)


def random(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def dense_top_k(x, k):
    z = x / x.norm(dim=-1, keepdim=True)
    similarity = z @ z.t()
    index = similarity.topk(k).indices
    mask = torch.zeros_like(similarity).scatter_(1, index, 1.0)
    return similarity * mask


def to_dense(index, value):
    return value.new_zeros(value.size(0), value.size(0)).scatter(1, index, value)


@pytest.mark.parametrize('entries', [1, 500 * 7, 10**9])
def test_top_k_cosine_equals_the_dense_form(entries):
    x = random(500, 6).requires_grad_()
    weight = random(500, 500, seed=1)
    index, value = top_k_cosine(x, 10, entries)
    assert index.shape == value.shape == (500, 10)
    assert bool((index == torch.arange(500).view(-1, 1)).any(dim=1).all())
    expected = dense_top_k(x, 10)
    actual = to_dense(index, value)
    torch.testing.assert_close(actual, expected)
    # A function that is not linear, so that a wrong pairing of gradients shows.
    (grad,) = torch.autograd.grad((actual.square() * weight).sum(), x)
    (grad_dense,) = torch.autograd.grad((expected.square() * weight).sum(), x)
    assert grad.abs().max() > 0.1
    torch.testing.assert_close(grad, grad_dense)


def test_top_k_cosine_gradcheck():
    x = random(7, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: top_k_cosine(x, 3)[1], x)


def test_top_k_cosine_of_few_and_of_zero_rows():
    x = random(4, 3)
    x[2] = 0.0
    x.requires_grad_()
    index, value = top_k_cosine(x, 10)
    assert index.shape == (4, 4)
    dense = to_dense(index, value)
    assert not dense[2].any() and not dense[:, 2].any()
    torch.testing.assert_close(dense.diag(), torch.tensor([1.0, 1, 0, 1]).double())
    weight = row_sum_norm(index, value, value.sum(dim=1))
    assert weight.isfinite().all() and not to_dense(index, weight)[2].any()
    weight.sum().backward()
    assert x.grad.isfinite().all()


def test_top_k_cosine_is_exact_under_autocast():
    torch.manual_seed(0)
    x = torch.randn(300, 8).bfloat16()
    index, value = top_k_cosine(x.float(), 10)
    with torch.autocast('cpu', torch.bfloat16):
        other_index, other = top_k_cosine(x, 10)
    assert other.dtype == torch.float32
    assert torch.equal(other_index, index) and torch.equal(other, value)


def test_row_sum_norm_by_hand():
    index = torch.tensor([[0, 1], [1, 2], [2, 0]])
    value = torch.tensor([[1.0, 3.0], [4.0, 5.0], [1.0, -2.0]])
    actual = row_sum_norm(index, value, value.sum(dim=1))
    # Row sums 4, 9 and -1; the last one is not positive.
    expected = torch.tensor([[1 / 4, 3 / 6], [4 / 9, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(actual, expected)


def test_neighbor_edges():
    edge_index = neighbor_edges(torch.tensor([[0, 2], [1, 0]]))
    assert edge_index.tolist() == [[0, 2, 1, 0], [0, 0, 1, 1]]


def test_merge_edges_adds_up_and_keeps_gradients():
    first, second = torch.tensor([[3, 0, 1], [0, 2, 2]]), torch.tensor([[0, 3], [2, 1]])
    a = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([10.0, 20.0], dtype=torch.float64, requires_grad=True)
    edge_index, weight = merge_edges([first, second], [a, b], 4)
    assert edge_index.tolist() == [[3, 3, 0, 1], [0, 1, 2, 2]]
    assert weight.tolist() == [1.0, 20.0, 12.0, 3.0]

    x = random(4, 5)

    def merged(a, b):
        return propagate(x, *merge_edges([first, second], [a, b], 4))

    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[edge_index[1], edge_index[0]] = weight.detach()
    torch.testing.assert_close(merged(a, b).detach(), expected @ x)
    assert torch.autograd.gradcheck(merged, (a, b))


def test_block_rows_bound_the_block():
    assert block_rows(100, 1000) == 10
    assert block_rows(100, 99) == 1
