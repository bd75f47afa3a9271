from __future__ import annotations

import warnings
from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor, SparseTensor
from torch_geometric.utils import spmm

from motor_geo.nn.nodes import synchronous
from motor_geo.nn.precision import Function, full_precision

#: A product is computed for some rows only if they hold less than this part of
#: the entries: these have to be picked first.
SHARE = 3

# Said once per process, whatever is done.
warnings.filterwarnings('ignore', '.*Sparse CSR tensor support is in beta.*')


class Propagate(MessagePassing):
    r"""The weighted sum of neighbours, the base of every propagation here,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)} e_{j,i} \mathbf{x}_j

    on square and on bipartite graphs. All input formats give the same numbers
    and gradients; an :class:`~torch_geometric.EdgeIndex` sorted by column with
    filled caches (see :func:`motor_geo.nn.graph.sorted_edge_index`) is by far the fastest, since
    its backward pass multiplies with a cached transpose.

    Args:
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:**
          source features :math:`(|\mathcal{V}_s|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)` or the *transposed* sparse
          adjacency matrix :math:`(|\mathcal{V}_t|, |\mathcal{V}_s|)`,
          edge weights :math:`(|\mathcal{E}|)` *(optional; part of the matrix
          if that is sparse)*, sizes
          :math:`(|\mathcal{V}_s|, |\mathcal{V}_t|)` *(optional; a square graph
          if missing)*
        - **output:** target features :math:`(|\mathcal{V}_t|, F)`
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(self, **kwargs: Any):
        kwargs.setdefault('aggr', 'add')
        super().__init__(**kwargs)

    @full_precision
    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_weight: OptTensor = None,
        size: Optional[Tuple[int, int]] = None,
    ) -> Tensor:
        if isinstance(edge_index, EdgeIndex):
            rows, cols = size if size is not None else edge_index.sparse_size()
            rows = x.size(0) if rows is None else rows
            edge_index.sparse_resize_(rows, rows if cols is None else cols)
        elif isinstance(edge_index, Tensor) and edge_index.layout == torch.strided:
            size = (x.size(0), x.size(0)) if size is None else size
        elif edge_weight is not None:
            raise ValueError(
                "'edge_weight' cannot be given together with a sparse matrix: "
                'its values are the weights'
            )
        # propagate_type: (x: OptPairTensor, edge_weight: OptTensor)
        return self.propagate(edge_index, x=(x, None), edge_weight=edge_weight, size=size)

    def rows(self, x: Tensor, edge_index: EdgeIndex, edge_weight: Tensor, index: Tensor) -> Tensor:
        r"""What :meth:`forward` gives at some targets, which may repeat; the
        others are not computed where that is less work.

        Shapes:
            - **input:** source features :math:`(|\mathcal{V}_s|, F)`, edge
              indices :math:`(2, |\mathcal{E}|)` sorted by column, edge weights
              :math:`(|\mathcal{E}|)`, targets :math:`(B)`
            - **output:** target features :math:`(B, F)`
        """
        if not self.fuse or edge_weight.requires_grad:
            return self(x, edge_index, edge_weight).index_select(0, index)
        csc, _ = edge_index.get_csc()
        return _SpMMRows.apply(x, csc, transposed(edge_index, edge_weight), edge_weight, index)

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    def message_and_aggregate(
        self, edge_index: Adj, x: Tuple[Tensor, OptTensor], edge_weight: OptTensor
    ) -> Tensor:
        if isinstance(edge_index, EdgeIndex):
            return propagate(x[0], edge_index, edge_weight)
        if isinstance(edge_index, SparseTensor) and edge_index.dtype() != x[0].dtype:
            edge_index = edge_index.type(x[0].dtype)
        return spmm(edge_index, x[0], reduce='sum')


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


def transposed(edge_index: EdgeIndex, edge_weight: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
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
