from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch_geometric import EdgeIndex
from torch_geometric.typing import OptTensor
from torch_geometric.utils import softmax

from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.functional.autocast import Function
from motor_geo.nn.functional.spmm import csr_matmul, sampled_dot


class DotAttention(nn.Module):
    r"""Attention by plain inner products over in-neighbours, from the `"GRCN:
    Graph-Refined Convolutional Network for Multimedia Recommendation with
    Implicit Feedback" <https://arxiv.org/abs/2111.02036>`_ paper,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)} \alpha_{j,i}
        \mathbf{x}_j, \qquad
        \alpha_{j,i} = \frac{\exp(\mathbf{x}_i^{\top} \mathbf{x}_j)}
        {\sum_{k \in \mathcal{N}(i)} \exp(\mathbf{x}_i^{\top} \mathbf{x}_k)} ,

    without parameters, scaling or temperature. A node without in-neighbours
    gets zeros. An :class:`~torch_geometric.EdgeIndex` sorted by column with
    filled caches (see :func:`motor_geo.nn.graph.sorted_edge_index`) gives the
    same numbers as plain edge indices without tensors of size
    :math:`|\mathcal{E}| \times F`.

    Shapes:
        - **input:** source and target features
          :math:`((|\mathcal{V}_s|, F), (|\mathcal{V}_t|, F))`,
          edge indices :math:`(2, |\mathcal{E}|)`,
          inner products :math:`(|\mathcal{E}|)` *(optional; computed if
          missing)*
        - **output:** target features :math:`(|\mathcal{V}_t|, F)`,
          attention :math:`(|\mathcal{E}|)`
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = Propagate()

    def forward(
        self, x: tuple[Tensor, Tensor], edge_index: Tensor, logit: OptTensor = None
    ) -> tuple[Tensor, Tensor]:
        x_src, x_dst = x
        size = (x_src.size(0), x_dst.size(0))
        if isinstance(edge_index, EdgeIndex):
            if logit is None:
                logit = edge_dot(x_src, x_dst, edge_index)
            (colptr, _), _ = edge_index.get_csc()
            alpha = _Softmax.apply(logit, edge_index.as_tensor()[1], colptr)
        else:
            source, target = edge_index
            if logit is None:
                logit = (x_src[source] * x_dst[target]).sum(dim=-1)
            alpha = softmax(logit, target, num_nodes=size[1])
        return self.conv(x_src, edge_index, alpha, size), alpha

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'


def edge_dot(x_src: Tensor, x_dst: Tensor, edge_index: EdgeIndex) -> Tensor:
    r"""Inner products of the two ends of every edge, for an
    :class:`~torch_geometric.EdgeIndex` sorted by column: a sampled product,
    and two sparse products in the backward pass.

    Shapes:
        - **input:** source features :math:`(|\mathcal{V}_s|, F)`, target
          features :math:`(|\mathcal{V}_t|, F)`, edge indices
          :math:`(2, |\mathcal{E}|)`
        - **output:** :math:`(|\mathcal{E}|)`
    """
    (colptr, source), _ = edge_index.get_csc()
    (rowptr, col), perm = edge_index.get_csr()
    target = edge_index.as_tensor()[1]
    return _EdgeDot.apply(x_src, x_dst, source, target, colptr, rowptr, col, perm)


class _EdgeDot(Function):
    @staticmethod
    def forward(ctx, x_src, x_dst, source, target, colptr, rowptr, col, perm):  # type: ignore
        ctx.save_for_backward(x_src, x_dst, source, colptr, rowptr, col, perm)
        return sampled_dot(colptr, source, target, x_src, x_dst)

    @staticmethod
    def backward(ctx, grad):  # type: ignore
        x_src, x_dst, source, colptr, rowptr, col, perm = ctx.saved_tensors
        grad_src = grad_dst = None
        if ctx.needs_input_grad[0]:
            transposed = grad.contiguous() if perm is None else grad.index_select(0, perm)
            grad_src = csr_matmul(rowptr, col, transposed, x_dst)
        if ctx.needs_input_grad[1]:
            grad_dst = csr_matmul(colptr, source, grad.contiguous(), x_src)
        return grad_src, grad_dst, None, None, None, None, None, None


class _Softmax(Function):
    r"""The softmax over in-neighbours, for edges sorted by target."""

    @staticmethod
    def forward(ctx, logit, target, ptr):  # type: ignore
        largest = torch.segment_reduce(logit, 'max', offsets=ptr)
        out = (logit - largest.index_select(0, target)).exp_()
        total = torch.segment_reduce(out, 'sum', offsets=ptr)
        out /= total.index_select(0, target)
        ctx.save_for_backward(out, target, ptr)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore
        out, target, ptr = ctx.saved_tensors
        total = torch.segment_reduce(grad * out, 'sum', offsets=ptr)
        return (grad - total.index_select(0, target)).mul_(out), None, None
