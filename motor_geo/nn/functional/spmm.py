r"""Products of sparse matrices with dense ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric import EdgeIndex
from torch_geometric.typing import OptTensor

from motor_geo.nn.functional.autocast import Function
from motor_geo.nn.functional.distinct import synchronous

#: A product is computed for some rows only if they hold less than this part of
#: the entries: these have to be picked first.
SHARE = 3


def propagate(x: Tensor, edge_index: EdgeIndex, edge_weight: OptTensor = None) -> Tensor:
    r"""The fused form of :class:`Propagate` for an
    :class:`~torch_geometric.EdgeIndex` sorted by column; differentiable in
    :obj:`x` and :obj:`edge_weight`.

    Shapes:
        - **input:** source features :math:`(|\mathcal{V}_s|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*
        - **output:** target features :math:`(|\mathcal{V}_t|, F)`
    """
    (colptr, row), _ = edge_index.get_csc()
    (rowptr, col), perm = edge_index.get_csr()
    target = edge_index.as_tensor()[1]
    return _SpMM.apply(x, edge_weight, colptr, row, target, rowptr, col, perm)


class _SpMM(Function):
    @staticmethod
    def forward(ctx, x, weight, colptr, row, target, rowptr, col, perm):  # type: ignore
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, rowptr, col, perm)
        ctx.edges = (colptr, row, target)
        return csr_matmul(colptr, row, weight, x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore
        x, weight, rowptr, col, perm = ctx.saved_tensors
        grad, grad_x, grad_weight = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            grad_x = csr_matmul(rowptr, col, _reorder(weight, perm), grad)
        if ctx.needs_input_grad[1]:
            colptr, row, target = ctx.edges
            grad_weight = sampled_dot(colptr, row, target, x, grad)
        return grad_x, grad_weight, None, None, None, None, None, None


class _SpMMRows(Function):
    @staticmethod
    def forward(ctx, x, csc, transpose, weight, index):  # type: ignore
        indptr, source = csc
        ctx.transpose, ctx.size = transpose, indptr.numel() - 1
        ctx.save_for_backward(index)
        return csr_matmul_rows(indptr, source, weight, x, index)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore
        (index,) = ctx.saved_tensors
        indptr, target, weight = ctx.transpose
        full = grad.new_zeros(ctx.size, grad.size(1)).index_add_(0, index, grad)
        return csr_matmul(indptr, target, weight, full), None, None, None, None


def transposed(edge_index: EdgeIndex, edge_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""The transpose of an adjacency matrix in compressed rows, as
    :meth:`csr_matmul` takes it.
    """
    (rowptr, col), perm = edge_index.get_csr()
    return rowptr, col, _reorder(edge_weight, perm)


# Fixed weights in the order of the transpose, for as long as they are alive: picking them in
# every backward pass takes longer than the product.
_REORDERED = WeakTensorKeyDictionary()


def _reorder(weight: OptTensor, perm: OptTensor) -> OptTensor:
    if weight is None or perm is None:
        return weight
    if weight.requires_grad:
        return weight.index_select(0, perm)
    known = _REORDERED.get(weight)
    if known is None or known[0] is not perm or known[1] != weight._version:
        known = _REORDERED[weight] = perm, weight._version, weight.index_select(0, perm)
    return known[2]


def csr_matmul(indptr: Tensor, index: Tensor, value: OptTensor, x: Tensor) -> Tensor:
    r"""Product of a sparse matrix in compressed rows with a dense one; entries
    are ones without :obj:`value`. Not differentiable: what calls it has a
    backward pass of its own.
    """
    if x.device.type == 'cpu':  # Two to three times faster than MKL, and in any precision.
        # Detached, or it prepares for a backward pass of its own (four times as slow).
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
    return torch.sparse_csr_tensor(indptr, index, value, size, check_invariants=False) @ x


def csr_matmul_rows(indptr: Tensor, index: Tensor, value: Tensor, x: Tensor, row: Tensor) -> Tensor:
    r"""Rows of the product of :meth:`csr_matmul`. The others are not computed
    where that is less work, but on an accelerator, which would have to wait
    for the number of entries.
    """
    if synchronous(row):
        start = indptr.index_select(0, row)
        count = indptr.index_select(0, row + 1) - start
        end = count.cumsum(0)
        total = int(end[-1]) if end.numel() > 0 else 0
        if SHARE * total < index.numel():
            entry = torch.repeat_interleave(start - end + count, count, output_size=total)
            entry += torch.arange(total)
            part = index.index_select(0, entry), value.index_select(0, entry)
            return csr_matmul(F.pad(end, (1, 0)), *part, x)
    return csr_matmul(indptr, index, value, x).index_select(0, row)


def sampled_dot(
    colptr: Tensor, source: Tensor, target: Tensor, x_src: Tensor, x_dst: Tensor
) -> Tensor:
    r"""Inner products :math:`\mathbf{x}_j^{\top} \mathbf{y}_i` at the entries
    :math:`(i, j)` of a sparse matrix in compressed rows.
    """
    if x_src.is_cuda or torch.backends.mkl.is_available():  # What the kernel needs.
        size, zero = (x_dst.size(0), x_src.size(0)), x_src.new_zeros(source.numel())
        out = torch.sparse_csr_tensor(colptr, source, zero, size, check_invariants=False)
        return torch.sparse.sampled_addmm(out, x_dst, x_src.t(), beta=0.0).values()
    return (x_src.index_select(0, source) * x_dst.index_select(0, target)).sum(dim=-1)
