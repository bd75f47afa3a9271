r"""Products of sparse and dense matrices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric import EdgeIndex
from torch_geometric.typing import OptTensor

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.distinct import synchronous
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.graph import SortedEdges, shard_of
from motor_geo.nn.memo import Memo
from motor_geo.parallel.user_index import UserIndex

#: A product is computed for the requested rows only if they hold less than one part in this many
#: of all entries, since gathering these entries has a cost.
SHARE = 3
#: Number of rows that are computed at a time.
BLOCK = 2**14

Edges: TypeAlias = EdgeIndex | SortedEdges  # Sorted by target.
Matrix = tuple[Tensor, Tensor, OptTensor]  # Compressed rows: pointers, columns, values.


@has_kernel
@full_precision
def propagate(x: Tensor, edge_index: Edges, edge_weight: OptTensor = None) -> Tensor:
    r"""Weighted sum of neighbors,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)} e_{j,i} \mathbf{x}_j ,

    for an :class:`~torch_geometric.EdgeIndex` sorted by column, or
    :class:`~motor_geo.nn.graph.SortedEdges`. It is differentiable in :obj:`x`
    and :obj:`edge_weight`. The kernel multiplies with a matrix in CSR format,
    and with its transpose in the backward pass. If the sources are the users of
    one of several processes (:class:`~motor_geo.parallel.UserShard`), it adds the
    sums of all of them.

    Shapes:
        - **input:** source features :math:`(|\mathcal{V}_s|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*
        - **output:** target features :math:`(|\mathcal{V}_t|, F)`
    """
    source, target = edge_index.as_tensor()
    message = x.index_select(0, source)
    message = message if edge_weight is None else message * edge_weight.view(-1, 1)
    size = edge_index.get_sparse_size(1), x.size(1)
    out = torch.zeros(size, dtype=message.dtype, device=message.device)
    return out.index_add(0, target, message)


@propagate.kernel
def _(x: Tensor, edge_index: Edges, edge_weight: OptTensor = None) -> Tensor:
    out, shard = _Propagate.apply(x, edge_weight, edge_index), shard_of(edge_index)
    return out if shard is None else shard.at_items(out)


class _Propagate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: OptTensor, edge_index: Edges) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.edge_index = edge_index
        return csr_matmul(*csc(edge_index), weight, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        x, weight = ctx.saved_tensors
        grad, grad_x, grad_weight = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            grad_x = csr_matmul(*transposed(ctx.edge_index, weight), grad)
        if ctx.needs_input_grad[1]:
            grad_weight = sampled_dot(ctx.edge_index, x, grad)
        return grad_x, grad_weight, None


@has_kernel
@full_precision
def propagate_rows(x: Tensor, edge_index: Edges, edge_weight: Tensor, index: Tensor) -> Tensor:
    r"""Result of :func:`propagate` at the targets in :obj:`index`, which may
    repeat. The kernel skips all other targets if this takes less work. If
    :obj:`edge_weight` requires a gradient, the plain function is used.

    Shapes:
        - **input:** source features :math:`(|\mathcal{V}_s|, F)`, edge indices
          :math:`(2, |\mathcal{E}|)`, edge weights :math:`(|\mathcal{E}|)`,
          targets :math:`(B)`
        - **output:** target features :math:`(B, F)`
    """
    return propagate(x, edge_index, edge_weight).index_select(0, index)


@propagate_rows.kernel
def _(x: Tensor, edge_index: Edges, edge_weight: Tensor, index: Tensor) -> Tensor:
    if edge_weight.requires_grad:
        return propagate_rows.reference(x, edge_index, edge_weight, index)
    args = csc(edge_index), transposed(edge_index, edge_weight), edge_weight
    if isinstance(index, UserIndex):  # Of all processes; each computes the rows of its own.
        return index.spread(_PropagateRows.apply(x, *args, index.local))
    out, shard = _PropagateRows.apply(x, *args, index), shard_of(edge_index)
    return out if shard is None else shard.at_items(out)


class _PropagateRows(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        csc: tuple[Tensor, Tensor],
        transpose: Matrix,
        weight: Tensor,
        index: Tensor,
    ) -> Tensor:
        indptr, source = csc
        ctx.transpose, ctx.size = transpose, indptr.numel() - 1
        ctx.save_for_backward(index)
        return csr_matmul_rows(indptr, source, weight, x, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        (index,) = ctx.saved_tensors
        indptr, target, weight = ctx.transpose
        full = grad.new_zeros(ctx.size, grad.size(1)).index_add_(0, index, grad)
        return csr_matmul(indptr, target, weight, full), None, None, None, None


def csc(edge_index: Edges) -> tuple[Tensor, Tensor]:
    r"""Column pointers and sources of edges sorted by target. An edge index caches
    them, created outside :obj:`torch.inference_mode`, so that training can reuse
    them.
    """
    if isinstance(edge_index, SortedEdges):
        return edge_index.ptr, edge_index.source
    if not torch.is_inference_mode_enabled():
        return edge_index.get_csc()[0]
    with torch.inference_mode(False):
        return edge_index.get_csc()[0]


def csr(edge_index: Edges) -> tuple[tuple[Tensor, Tensor], OptTensor]:
    r"""Row pointers and targets of edges sorted by source, and the permutation to
    this order. They are cached as in :func:`csc`.
    """
    if isinstance(edge_index, SortedEdges):
        order = _ORDERS(lambda: edge_index.order().to(edge_index.ptr.dtype), edge_index[:2])
        return (edge_index.out_ptr, edge_index.target), order
    if not torch.is_inference_mode_enabled():
        return edge_index.get_csr()
    with torch.inference_mode(False):
        return edge_index.get_csr()


def targets(edge_index: Edges) -> Tensor:
    r"""The target of every edge. The result is cached."""
    if isinstance(edge_index, SortedEdges):
        return _TARGETS(lambda: edge_index.as_tensor()[1].clone(), edge_index[:2])
    return edge_index.as_tensor()[1]


def matrix(edge_index: Edges, edge_weight: OptTensor) -> Matrix:
    r"""The adjacency matrix in CSR format with one row per target, as input of
    :func:`csr_matmul`.
    """
    return *csc(edge_index), edge_weight


def transposed(edge_index: Edges, edge_weight: OptTensor) -> Matrix:
    r"""The transpose of :func:`matrix` in CSR format."""
    if isinstance(edge_index, SortedEdges):
        if edge_weight is None or edge_weight is edge_index.weight:
            weight = None if edge_weight is None else edge_index.out_weight
            return edge_index.out_ptr, edge_index.target, weight
    (rowptr, col), perm = csr(edge_index)
    return rowptr, col, _reorder(edge_weight, perm)


# Caches of the order of the transpose, of targets, and of fixed weights in the order of the
# transpose: reordering them in every backward pass would take longer than the product.
_ORDERS, _TARGETS, _REORDERED = Memo(size=64), Memo(size=64), Memo(size=64)


def _reorder(weight: OptTensor, perm: OptTensor) -> OptTensor:
    if weight is None or perm is None:
        return weight
    if weight.requires_grad:
        return weight.index_select(0, perm)
    return _REORDERED(lambda: weight.index_select(0, perm), weight, perm)


def csr_matmul(indptr: Tensor, index: Tensor, value: OptTensor, x: Tensor) -> Tensor:
    r"""Product of a sparse matrix in CSR format with a dense matrix. Without
    :obj:`value`, all entries are one. The function is not differentiable, since
    its callers define their own backward passes.
    """
    if x.device.type == 'cpu':  # Two to three times faster than MKL, in any precision.
        # Without `detach`, it prepares its own backward pass and is four times slower.
        return F.embedding_bag(
            index,
            x.detach(),
            indptr,
            mode='sum',
            per_sample_weights=None if value is None else value.detach(),
            include_last_offset=True,
        )
    value = x.new_ones(index.numel()) if value is None else value
    size = (indptr.numel() - 1, x.size(0))
    return csr_tensor(indptr, index, value, size) @ x


def csr_matmul_rows(
    indptr: Tensor, index: Tensor, value: OptTensor, x: Tensor, row: Tensor
) -> Tensor:
    r"""Rows of the product of :func:`csr_matmul`. All other rows are skipped if
    this takes less work. An accelerator always computes all rows, since counting
    the entries of the requested rows would require synchronization.
    """
    if not synchronous(row):
        return csr_matmul(indptr, index, value, x).index_select(0, row)
    out = x.new_empty(row.numel(), x.size(1))
    for rows, sums in csr_blocks(indptr, index, value, x, row):
        out[rows] = sums
    return out


def csr_blocks(
    indptr: Tensor, index: Tensor, value: OptTensor, x: Tensor, row: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    r"""Yields the result of :func:`csr_matmul_rows` in blocks, and where they begin
    and end.
    """
    start = indptr.index_select(0, row)
    count = indptr.index_select(0, row + 1) - start
    few = SHARE * int(count.sum()) < index.numel()
    full = None if few else csr_matmul(indptr, index, value, x)
    for first in range(0, row.numel(), BLOCK):
        rows = slice(first, first + BLOCK)
        if full is None:
            yield rows, _sums_of_rows(start[rows], count[rows], index, value, x)
        else:
            yield rows, full.index_select(0, row[rows])


def _sums_of_rows(
    start: Tensor, count: Tensor, index: Tensor, value: OptTensor, x: Tensor
) -> Tensor:
    r"""The rows of a product, from where their entries start and their number."""
    entry, end = _entries(start, count)
    value = None if value is None else value.index_select(0, entry)
    ends = F.pad(end, (1, 0)).to(index.dtype)
    return csr_matmul(ends, index.index_select(0, entry), value, x)


def neighbors(indptr: Tensor, index: Tensor, row: Tensor) -> Tensor:
    r"""The columns of all entries of some rows, one row after the other."""
    start = indptr.index_select(0, row)
    return index.index_select(0, _entries(start, indptr.index_select(0, row + 1) - start)[0])


def _entries(start: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    r"""The entries of some rows one after the other, and where those of a row end."""
    end = count.cumsum(0)
    entry = torch.repeat_interleave(start - end + count, count)
    entry += torch.arange(entry.numel(), device=entry.device)
    return entry, end


def sampled_dot(edge_index: Edges, x_src: Tensor, x_dst: Tensor) -> Tensor:
    r"""Inner products :math:`\mathbf{x}_j^{\top} \mathbf{y}_i` of the source
    :math:`j` and the target :math:`i` of every edge.
    """
    colptr, source = csc(edge_index)
    if x_src.is_cuda or torch.backends.mkl.is_available():  # Requirements of the kernel.
        size, zero = (x_dst.size(0), x_src.size(0)), x_src.new_zeros(source.numel())
        out = csr_tensor(colptr, source, zero, size)
        return torch.sparse.sampled_addmm(out, x_dst, x_src.t(), beta=0.0).values()
    return (x_src.index_select(0, source) * x_dst.index_select(0, targets(edge_index))).sum(dim=-1)


def csr_tensor(indptr: Tensor, index: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
    r"""A sparse tensor in CSR format, without the beta warning of PyTorch."""
    _warn_once()
    return torch.sparse_csr_tensor(indptr, index, value, size, check_invariants=False)


@cache
def _warn_once() -> None:
    # PyTorch only warns at the first CSR tensor of a process, which is this one.
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1))
