import copy
import gc
import re
import weakref

import pytest
import torch
import torch_geometric.typing
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor

from motor_geo.nn.conv import Propagate
from motor_geo.nn.functional.spmm import csr_matmul, csr_matmul_rows, transposed
from motor_geo.nn.graph import sorted_edge_index
from tests import forks


def reference(x, edge_index, weight, num_dst):
    out = x.new_zeros(num_dst, x.size(1))
    for e, (source, target) in enumerate(edge_index.t().tolist()):
        out[target] = out[target] + weight[e] * x[source]
    return out


@pytest.mark.parametrize('size', [(6, 6), (7, 4), (3, 8)])
@pytest.mark.parametrize('weighted', [True, False])
def test_propagate_formats(size, weighted):
    generator = torch.Generator().manual_seed(sum(size))
    num_src, num_dst = size
    pairs = torch.randperm((num_src - 1) * (num_dst - 1), generator=generator)[:10]
    # The last source and the last target have no edge.
    edge_index = torch.stack([pairs // (num_dst - 1), pairs % (num_dst - 1)])
    x = torch.randn(num_src, 5, generator=generator, dtype=torch.float64)
    upstream = torch.randn(num_dst, 5, generator=generator, dtype=torch.float64)
    weight = torch.rand(pairs.numel(), generator=generator, dtype=torch.float64)
    if not weighted:
        weight = torch.ones_like(weight)
    conv = Propagate()
    assert str(conv) == 'Propagate()'

    def run(function, *leaves):
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        out = function(*leaves)
        return out.detach(), torch.autograd.grad((out * upstream).sum(), leaves)

    expected, (grad_x, grad_weight) = run(
        lambda x, w: reference(x, edge_index, w, num_dst), x, weight
    )
    assert not expected[-1].any()

    # Plain `edge_index`, gathered and scattered.
    out, gradients = run(lambda x, w: conv(x, edge_index, w, size=size), x, weight)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, (grad_x, grad_weight))

    # `EdgeIndex` sorted by target, fused: weights follow its order.
    fast, perm = sorted_edge_index(edge_index, *size)
    perm = torch.arange(pairs.numel()) if perm is None else perm
    out, gradients = run(lambda x, w: conv(x, fast, w[perm]), x, weight)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, (grad_x, grad_weight))
    if not weighted:
        out, gradients = run(lambda x: conv(x, fast), x)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(gradients[0], grad_x)

    # `EdgeIndex` without sizes or sort order.
    by_row = edge_index[0].argsort(stable=True)
    plain = EdgeIndex(edge_index[:, by_row], sort_order='row')
    out, gradients = run(lambda x, w: conv(x, plain, w[by_row], size=size), x, weight)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, (grad_x, grad_weight))

    # A torch CSR matrix, transposed: its values are the weights.
    dense = torch.zeros(num_dst, num_src, dtype=torch.float64)
    dense[edge_index[1], edge_index[0]] = weight
    out, gradients = run(lambda x: conv(x, dense.to_sparse_csr()), x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients[0], grad_x)
    with pytest.raises(ValueError, match="'edge_weight' cannot be given together"):
        conv(x, dense.to_sparse_csr(), weight)

    if torch_geometric.typing.WITH_TORCH_SPARSE:

        def sparse(x, w):
            adj = SparseTensor(
                row=edge_index[1], col=edge_index[0], value=w, sparse_sizes=(num_dst, num_src)
            )
            return conv(x, adj)

        out, gradients = run(sparse, x, weight)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(gradients, (grad_x, grad_weight))
        adj = SparseTensor.from_dense(dense)
        out, gradients = run(lambda x: conv(x, adj), x)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(gradients[0], grad_x)


def test_propagate_gradcheck():
    edge_index, _ = sorted_edge_index(torch.tensor([[0, 1, 2, 2], [1, 0, 0, 1]]), 3, 2)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: Propagate()(x, edge_index, w), (x, weight))


@pytest.mark.parametrize('shape', [(1, 3), (1,), (), (2,), (3, 2)])
def test_weights_of_another_shape(shape):
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    fast, perm = sorted_edge_index(edge_index, 3, 3)
    x, conv = torch.eye(3), Propagate()
    message = re.escape(f"'edge_weight' must have shape [3], got {list(shape)}")
    for edges in (edge_index, fast):
        with pytest.raises(ValueError, match=f'^{message}$'):
            conv(x, edges, torch.ones(shape))
    with pytest.raises(ValueError, match=f'^{message}$'):
        conv.rows(x, fast, torch.ones(shape), torch.tensor([0]))


def test_weights_of_one_column():
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    fast, perm = sorted_edge_index(edge_index, 3, 3)
    x, weight, conv = torch.eye(3), torch.tensor([2.0, 3.0, 4.0]), Propagate()
    for edges, values in [(edge_index, weight), (fast, weight[perm])]:
        out = conv(x, edges, values.view(-1, 1))
        assert out.tolist() == [[0, 0, 4], [2, 0, 0], [0, 3, 0]]


def test_propagate_takes_the_fused_path(monkeypatch):
    conv = Propagate()
    edge_index, _ = sorted_edge_index(torch.tensor([[0, 1], [1, 0]]), 2, 2)
    monkeypatch.setattr(conv, 'message', None)  # Would be called by the slow one.
    x = torch.eye(2)
    assert torch.equal(conv(x, edge_index), x.flip(0))


def test_propagate_copies():
    conv = copy.deepcopy(Propagate())
    edge_index = torch.tensor([[0], [1]])
    assert conv(torch.ones(2, 1), edge_index).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('weighted', [True, False])
def test_csr_matmul(dtype, weighted):
    torch.manual_seed(0)
    dense = torch.rand(5, 7) * (torch.rand(5, 7) < 0.4)
    dense[2] = 0  # A row without entries.
    sparse = dense.to_sparse_csr()
    value = sparse.values() if weighted else torch.ones_like(sparse.values())
    expected = torch.sparse_csr_tensor(
        sparse.crow_indices(), sparse.col_indices(), value, dense.shape, check_invariants=True
    )
    x = torch.randn(7, 3)
    out = csr_matmul(
        sparse.crow_indices(),
        sparse.col_indices(),
        value.to(dtype) if weighted else None,
        x.to(dtype),
    )
    assert out.dtype == dtype
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-5
    expected = expected.to_dense() @ x
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)


def test_csr_matmul_keeps_nothing_for_a_backward_pass():
    indptr, index = torch.tensor([0, 1]), torch.tensor([0])
    x, value = torch.ones(1, 2, requires_grad=True), torch.ones(1, requires_grad=True)
    assert not csr_matmul(indptr, index, value, x).requires_grad


@pytest.mark.parametrize('devices', [('cpu',), ()])  # As on a CPU, as on a GPU.
@pytest.mark.parametrize('index', [[2], [], [0, 3, 0, 8], list(range(9)) * 2])
def test_rows(index, devices, monkeypatch):
    monkeypatch.setattr('motor_geo.nn.functional.distinct.SYNCHRONOUS', devices)
    generator = torch.Generator().manual_seed(0)
    pairs = (torch.rand(5, 9, generator=generator) < 0.5).nonzero().t()
    edge_index, _ = sorted_edge_index(pairs[:, pairs[1] != 3], 5, 9)  # Nothing to 3.
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=torch.float64)
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    index = torch.tensor(index, dtype=torch.long)
    expected = Propagate()(x, edge_index, weight).index_select(0, index)
    upstream = torch.randn(expected.size(), generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(expected, x, upstream)

    out = Propagate().rows(x, edge_index, weight, index)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out, x, upstream)[0], gradient)

    learned = weight.clone().requires_grad_()
    out = Propagate().rows(x, edge_index, learned, index)
    grad_x, grad_weight = torch.autograd.grad(out, (x, learned), upstream)
    torch.testing.assert_close(grad_x, gradient)
    assert grad_weight.any() == (index.numel() > 0)


def test_rows_leave_out_other_entries(monkeypatch):
    sizes = []

    def spy(indptr, index, value, x):
        sizes.append(index.numel())
        return csr_matmul(indptr, index, value, x)

    monkeypatch.setattr('motor_geo.nn.functional.spmm.csr_matmul', spy)
    indptr, x = torch.tensor([0, 1, 5, 9]), torch.randn(9, 2)
    index, value = torch.arange(9), torch.ones(9)
    out = csr_matmul_rows(indptr, index, value, x, torch.tensor([0, 0]))
    torch.testing.assert_close(out, x[:1].expand(2, 2))
    out = csr_matmul_rows(indptr, index, value, x, torch.tensor([1]))  # Nearly half of them.
    torch.testing.assert_close(out, x[1:5].sum(dim=0, keepdim=True))
    assert sizes == [2, 9]


def test_transposed_weights_are_kept_while_they_hold():
    edge_index, _ = sorted_edge_index(torch.tensor([[2, 0, 1, 0], [0, 1, 1, 2]]), 3, 3)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    *_, first = transposed(edge_index, weight)
    assert first.tolist() == [2.0, 4.0, 3.0, 1.0]
    assert transposed(edge_index, weight)[2] is first
    weight[0] = 5.0
    assert transposed(edge_index, weight)[2].tolist() == [2.0, 4.0, 3.0, 5.0]
    other, _ = sorted_edge_index(torch.tensor([[0, 1, 2, 0], [0, 1, 1, 2]]), 3, 3)
    assert transposed(other, weight)[2].tolist() == [5.0, 4.0, 2.0, 3.0]

    learned = weight.clone().requires_grad_()
    assert transposed(edge_index, learned)[2].requires_grad
    last = weakref.ref(transposed(edge_index, weight)[2])
    assert last() is not None
    del weight
    gc.collect()
    assert last() is None


@pytest.mark.parametrize('weighted', [True, False])
def test_propagate_is_exact_under_autocast(weighted):
    torch.manual_seed(0)
    edge_index = torch.randint(20, (2, 200)).unique(dim=1)
    x = torch.randn(20, 4).bfloat16()
    weight = torch.rand(edge_index.size(1)) if weighted else None
    conv = Propagate()
    fast, perm = sorted_edge_index(edge_index, 20, 20)
    order = None if weight is None else weight if perm is None else weight[perm]
    expected = conv(x.float(), edge_index, weight)
    with torch.autocast('cpu', torch.bfloat16):
        outs = [conv(x, edge_index, weight), conv(x, fast, order)]
    for out in outs:
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize('order', ['col', 'row', None])
def test_propagate_leaves_an_edge_index_as_it_is(order):
    pairs = torch.tensor([[0, 1, 2], [0, 0, 1]])  # Sorted both ways.
    edge_index = EdgeIndex(pairs, sort_order=order)
    x, conv = torch.arange(4.0).view(4, 1).requires_grad_(), Propagate()
    for size in ((4, 3), (4, 5), None):
        for _ in range(2):
            out = conv(x, edge_index, size=size)
            assert (
                out.flatten().tolist()
                == [1.0, 2.0, 0.0, 0.0, 0.0][: 4 if size is None else size[1]]
            )
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert gradient.flatten().tolist() == [1.0, 1.0, 1.0, 0.0]
        with torch.inference_mode():
            assert torch.equal(conv(x, edge_index, size=size), out)
        assert edge_index.sparse_size() == (None, None)


def test_no_warning_of_sparse_tensors():
    code = """
import warnings

import torch
from motor_geo.nn.functional.edges import edge_dot
from motor_geo.nn.functional.similarity import row_dot
from motor_geo.nn.graph import sorted_edge_index
warnings.simplefilter('always', UserWarning)
x = torch.ones(3, 2, requires_grad=True)
edges, _ = sorted_edge_index(torch.tensor([[0, 1], [1, 2]]), 3, 3)
(edge_dot(x, x, edges).sum() + row_dot(x, torch.tensor([[0], [2], [1]])).sum()).backward()
"""
    done = forks.run('-c', code)
    assert (done.returncode, done.stderr) == (0, '')
