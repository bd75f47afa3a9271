r"""Functions of the two endpoints of edges, for edges sorted by target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.typing import OptTensor
from torch_geometric.utils import softmax

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.functional.spmm import Edges, csc, csr, csr_matmul, sampled_dot, targets
from motor_geo.nn.graph import shard_of
from motor_geo.parallel.user_shard import UserShard
from motor_geo.parallel.world import World


@has_kernel
@full_precision
def edge_dot(x_src: Tensor, x_dst: Tensor, edge_index: Edges) -> Tensor:
    r"""Inner product of the two endpoints of every edge,
    :math:`\mathbf{x}_j^{\top} \mathbf{x}_i`. The kernel uses a sampled
    dense-dense product, and two sparse products in the backward pass.

    Shapes:
        - **input:** source features :math:`(|\mathcal{V}_s|, F)`, target
          features :math:`(|\mathcal{V}_t|, F)`, edge indices
          :math:`(2, |\mathcal{E}|)` sorted by column
        - **output:** :math:`(|\mathcal{E}|)`
    """
    source, target = edge_index.as_tensor()
    return (x_src.index_select(0, source) * x_dst.index_select(0, target)).sum(dim=-1)


@edge_dot.kernel
def _(x_src: Tensor, x_dst: Tensor, edge_index: Edges) -> Tensor:
    return _EdgeDot.apply(x_src, x_dst, edge_index)


class _EdgeDot(Function):
    @staticmethod
    def forward(ctx: Any, x_src: Tensor, x_dst: Tensor, edge_index: Edges) -> Tensor:
        ctx.save_for_backward(x_src, x_dst)
        ctx.edge_index = edge_index
        return sampled_dot(edge_index, x_src, x_dst)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        x_src, x_dst = ctx.saved_tensors
        grad_src = grad_dst = None
        if ctx.needs_input_grad[0]:
            (rowptr, col), perm = csr(ctx.edge_index)
            reordered = grad.contiguous() if perm is None else grad.index_select(0, perm)
            grad_src = csr_matmul(rowptr, col, reordered, x_dst)
        if ctx.needs_input_grad[1]:
            grad_dst = csr_matmul(*csc(ctx.edge_index), grad.contiguous(), x_src)
        return grad_src, grad_dst, None


@has_kernel
@full_precision
def edge_softmax(logit: Tensor, edge_index: Edges) -> Tensor:
    r"""Softmax over the incoming edges of every target,

    .. math::
        \alpha_{j,i} = \frac{\exp(s_{j,i})}
        {\sum_{k \in \mathcal{N}(i)} \exp(s_{k,i})} .

    Shapes:
        - **input:** logits :math:`(|\mathcal{E}|)`, edge indices
          :math:`(2, |\mathcal{E}|)` sorted by column
        - **output:** :math:`(|\mathcal{E}|)`
    """
    return softmax(logit, edge_index.as_tensor()[1], num_nodes=edge_index.get_sparse_size(1))


@edge_softmax.kernel
def _(logit: Tensor, edge_index: Edges) -> Tensor:
    target, ptr = targets(edge_index), csc(edge_index)[0]
    return _EdgeSoftmax.apply(logit, target, ptr, shard_of(edge_index))


class _EdgeSoftmax(Function):
    @staticmethod
    def forward(
        ctx: Any, logit: Tensor, target: Tensor, ptr: Tensor, shard: UserShard | None
    ) -> Tensor:
        ctx.world = world = World() if shard is None else shard.users
        largest = torch.segment_reduce(logit, 'max', offsets=ptr)
        largest = world.all_reduce(largest, 'softmax', 'max')
        out = (logit - largest.index_select(0, target)).exp_()
        total = world.all_reduce(torch.segment_reduce(out, 'sum', offsets=ptr), 'softmax')
        out /= total.index_select(0, target)
        ctx.save_for_backward(out, target, ptr)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        out, target, ptr = ctx.saved_tensors
        total = torch.segment_reduce(grad * out, 'sum', offsets=ptr)
        total = ctx.world.all_reduce(total, 'softmax')
        return (grad - total.index_select(0, target)).mul_(out), None, None, None
