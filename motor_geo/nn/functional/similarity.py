r"""Nearest neighbors of trained vectors: exact, differentiable, and without a
matrix over all pairs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.functional.spmm import csr_tensor
from motor_geo.nn.graph import sorted_edge_index
from motor_geo.utils.topk import topk

#: Number of similarities held at a time.
BLOCK_ENTRIES = 2**25


def block_rows(num_columns: int, entries: int = BLOCK_ENTRIES) -> int:
    r"""Number of rows of a block with about :obj:`entries` entries."""
    return max(1, entries // num_columns)


@full_precision
def top_k_cosine(x: Tensor, k: int, entries: int = BLOCK_ENTRIES) -> tuple[Tensor, Tensor]:
    r"""The :obj:`k` nearest rows of every row by cosine similarity, including the
    row itself,

    .. math::
        s_{ij} = \frac{\mathbf{x}_i^{\top} \mathbf{x}_j}
        {\| \mathbf{x}_i \| \, \| \mathbf{x}_j \|} .

    The function selects neighbors block by block without a gradient and then
    recomputes the selected similarities with a gradient. All other similarities
    have no gradient, so values and gradients equal those of a dense matrix. A
    row of zeros has similarity zero to every row, including itself.

    Args:
        x: Vectors.
        k: Number of neighbors, limited to :math:`N`.
        entries: Number of similarities held at a time.

    Shapes:
        - **input:** vectors :math:`(N, F)`
        - **output:** neighbors :math:`(N, k)` in no particular order, their
          similarities :math:`(N, k)`
    """
    z = F.normalize(x, dim=-1)
    index = _select(z.detach(), min(k, z.size(0)), entries)
    return index, row_dot(z, index)


@torch.no_grad()
def _select(z: Tensor, k: int, entries: int) -> Tensor:
    num_rows = z.size(0)
    step = min(block_rows(num_rows, entries), num_rows)
    index = torch.empty(num_rows, k, dtype=torch.long, device=z.device)
    z_t = z.t().contiguous()
    buffer = z.new_empty(step, num_rows)
    for start in range(0, num_rows, step):
        rows = z[start : start + step]
        similarity = torch.mm(rows, z_t, out=buffer[: rows.size(0)])
        index[start : start + step] = topk(similarity, k, sorted=False)[1]
    return index


@has_kernel
@full_precision
def row_dot(z: Tensor, index: Tensor) -> Tensor:
    r"""Inner products of every row with the rows in :obj:`index`,
    :math:`\mathbf{z}_i^{\top} \mathbf{z}_{j_{ik}}`. The kernel computes both
    parts of the gradient with sparse products. Unlike the backward pass of
    ``z[index]``, they sum in a fixed order and need no tensor of size
    :math:`N \cdot k \cdot F`.

    Shapes:
        - **input:** vectors :math:`(N, F)`, rows :math:`(N, k)`
        - **output:** :math:`(N, k)`
    """
    return (z.unsqueeze(1) * z[index]).sum(dim=-1)


@row_dot.kernel
def _(z: Tensor, index: Tensor) -> Tensor:
    return _RowDot.apply(z, index)


class _RowDot(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(z, index)
        out = [(z * z.index_select(0, column)).sum(dim=-1) for column in index.unbind(dim=1)]
        return torch.stack(out, dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        z, index = ctx.saved_tensors
        (num_rows, k), size = index.shape, (z.size(0), z.size(0))
        column, grad = index.flatten(), grad.flatten()
        ptr = torch.arange(0, column.numel() + 1, k, device=z.device)
        out = csr_tensor(ptr, column, grad, size) @ z
        order = column.argsort(stable=True)
        ptr = F.pad(torch.bincount(column, minlength=num_rows).cumsum(0), (1, 0))
        return out + csr_tensor(ptr, order // k, grad[order], size) @ z, None


def neighbor_edges(index: Tensor) -> Tensor:
    r"""Edges from the neighbors of every row to that row, ordered by row.

    Shapes:
        - **input:** neighbors :math:`(N, k)`
        - **output:** edge indices :math:`(2, N \cdot k)`
    """
    row = torch.arange(index.size(0), device=index.device).view(-1, 1)
    return torch.stack([index.flatten(), row.expand_as(index).flatten()])


def row_sum_norm(index: Tensor, value: Tensor, row_sum: Tensor) -> Tensor:
    r"""Normalizes similarities by the *row* sums :math:`d` of both endpoints,

    .. math::
        S_{ij} = \frac{s_{ij}}{\sqrt{d_i d_j}} .

    If a row sum is not positive, the weights of the row and of edges to it are
    zero.

    Shapes:
        - **input:** neighbors :math:`(N, k)`, similarities :math:`(N, k)`,
          row sums :math:`(N)`
        - **output:** weights :math:`(N, k)`
    """
    positive = row_sum > 0
    factor = torch.where(positive, row_sum, 1.0).rsqrt() * positive
    return value * factor.view(-1, 1) * factor.index_select(0, index.flatten()).view_as(index)


def merge_edges(
    edge_indices: list[Tensor], weights: list[Tensor], num_nodes: int
) -> tuple[EdgeIndex, Tensor]:
    r"""Sum of several graphs over the same nodes, in the layout on which
    :class:`~motor_geo.nn.conv.Propagate` is fastest. The result is
    differentiable in the weights.

    Args:
        edge_indices: Edges of every graph.
        weights: Edge weights of every graph.
        num_nodes: Number of nodes.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}_m|)`, their weights
          :math:`(|\mathcal{E}_m|)`
        - **output:** edge indices :math:`(2, |\mathcal{E}|)` sorted by
          target, their weights :math:`(|\mathcal{E}|)`
    """
    source, target = torch.cat([edges.as_subclass(Tensor) for edges in edge_indices], dim=1)
    key, inverse = torch.unique(target * num_nodes + source, return_inverse=True)
    weight = torch.cat(weights)
    weight = weight.new_zeros(key.numel()).index_add(0, inverse, weight)
    edge_index = torch.stack([key % num_nodes, key // num_nodes])
    return sorted_edge_index(edge_index, num_nodes, num_nodes)[0], weight
