r"""Sums over the layers of user-item graphs with custom gradients. They do not
store the intermediate layers that autograd would keep, and need no extra
passes over tables to add layers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.typing import OptTensor

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.edges import edge_dot
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.functional.normalized import NormalizedRows, NormalizedSum
from motor_geo.nn.functional.rows import normalize_grad
from motor_geo.nn.functional.spmm import (
    Matrix,
    csc,
    csr_matmul,
    csr_matmul_rows,
    matrix,
    neighbors,
    propagate,
    propagate_rows,
    transposed,
)
from motor_geo.nn.graph import BipartiteGraph, NormalizedGraph, shard_of
from motor_geo.parallel.user_index import UserIndex
from motor_geo.parallel.user_shard import UserShard

EPS = 1e-8  # Minimum length of a vector for normalization.

LightGraph = BipartiteGraph | NormalizedGraph
Pair = tuple[Tensor, Tensor]  # Users and items.


def hop(user: Tensor, item: Tensor, graph: BipartiteGraph) -> Pair:
    r"""One hop on a user-item graph, in both directions,

    .. math::
        \mathbf{u}^{\prime} = \sum_{i \in \mathcal{N}(u)} e_{i,u} \mathbf{i},
        \qquad
        \mathbf{i}^{\prime} = \sum_{u \in \mathcal{N}(i)} e_{u,i} \mathbf{u} .

    Args:
        user: User features.
        item: Item features.
        graph: The user-item graph.

    Shapes:
        - **input:** user features :math:`(M, F)`, item features :math:`(N, F)`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`
    """
    return (
        propagate(item, graph.to_user, graph.to_user_weight),
        propagate(user, graph.to_item, graph.to_item_weight),
    )


def needs_reference(graph: BipartiteGraph) -> bool:
    r"""Whether the kernels of sums over layers do not apply: if edge weights require
    a gradient, or the graph has a part of all users.
    """
    learned = graph.to_user_weight.requires_grad or graph.to_item_weight.requires_grad
    return learned or shard_of(graph.to_item) is not None


@has_kernel
@full_precision
def light_sum(
    user: Tensor, item: Tensor, graph: LightGraph, num_layers: int, scale: float = 1.0
) -> Pair:
    r"""Sum over the layers of LightGCN,

    .. math::
        \mathbf{X} = s \sum_{l=0}^{L} \mathbf{A}^l \mathbf{X}^{(0)} .

    The kernel uses Horner's rule, :math:`\mathbf{X}^{(0)} + \mathbf{A}
    (\mathbf{X}^{(0)} + \mathbf{A} ( \cdots ))`, in both passes.

    Args:
        user: User features.
        item: Item features.
        graph: The user-item graph. For a
            :class:`~motor_geo.nn.graph.NormalizedGraph`, the kernel scales rows
            between hops, so that it needs no edge weights.
        num_layers: Number of hops :math:`L`.
        scale: Factor :math:`s`.

    Shapes:
        - **input:** user features :math:`(M, F)`, item features :math:`(N, F)`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`
    """
    if isinstance(graph, NormalizedGraph):
        graph = graph.weighted(user.dtype)
    x_user, x_item = user, item
    for _ in range(num_layers):
        x_user, x_item = hop(x_user, x_item, graph)
        user, item = user + x_user, item + x_item
    return user * scale, item * scale


@light_sum.kernel
def _(user: Tensor, item: Tensor, graph: LightGraph, num_layers: int, scale: float = 1.0) -> Pair:
    if isinstance(graph, NormalizedGraph):
        return NormalizedSum.apply(user, item, graph, num_layers, scale)
    if needs_reference(graph):
        return light_sum.reference(user, item, graph, num_layers, scale)
    return _LightSum.apply(user, item, graph, num_layers, scale)


class _LightSum(Function):
    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, graph: BipartiteGraph, num_layers: int, scale: float
    ) -> Pair:
        ctx.options = graph, num_layers, scale
        return _horner(user, item, *_matrices(graph), num_layers, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, user: Tensor, item: Tensor) -> tuple[OptTensor, ...]:
        graph, num_layers, scale = ctx.options
        return *_horner(user, item, *_transposed(graph), num_layers, scale), None, None, None


def _horner(
    user: Tensor, item: Tensor, to_user: Matrix, to_item: Matrix, num_layers: int, scale: float
) -> Pair:
    if scale != 1 or num_layers == 0:  # A result must not be an input.
        user, item = user * scale, item * scale
    x_user, x_item = user, item
    for _ in range(num_layers):
        x_user, x_item = (
            csr_matmul(*to_user, x_item).add_(user),
            csr_matmul(*to_item, x_user).add_(item),
        )
    return x_user, x_item


def _matrices(graph: BipartiteGraph) -> tuple[Matrix, Matrix]:
    return matrix(graph.to_user, graph.to_user_weight), matrix(graph.to_item, graph.to_item_weight)


def _transposed(graph: BipartiteGraph) -> tuple[Matrix, Matrix]:
    to_user = transposed(graph.to_item, graph.to_item_weight)
    return to_user, transposed(graph.to_user, graph.to_user_weight)


@has_kernel
@full_precision
def light_rows(
    user: Tensor,
    item: Tensor,
    graph: LightGraph,
    num_layers: int,
    scale: float,
    user_index: Tensor,
    item_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Rows of the result of :func:`light_sum` and of its input. The kernel adds
    up layers for these rows only. Its backward pass adds the gradient to these
    rows between hops. The last hop of the forward pass skips all other rows if
    this takes less work.

    Shapes:
        - **input:** user features :math:`(M, F)`, item features
          :math:`(N, F)`, users :math:`(B)`, items :math:`(C)`
        - **output:** user features :math:`(B, F)` and item features
          :math:`(C, F)` of the sum, and of the input
    """
    out_user, out_item = light_sum(user, item, graph, num_layers, scale)
    return (
        out_user.index_select(0, user_index),
        out_item.index_select(0, item_index),
        user.index_select(0, user_index),
        item.index_select(0, item_index),
    )


@light_rows.kernel
def _(
    user: Tensor,
    item: Tensor,
    graph: LightGraph,
    num_layers: int,
    scale: float,
    user_index: Tensor,
    item_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if isinstance(user_index, UserIndex):
        if user_index.shard.users.size > 1:
            assert isinstance(graph, BipartiteGraph)
            return _shared_rows(user, item, graph, num_layers, scale, user_index, item_index)
        user_index = user_index.local  # All users are on this process.
    args = user, item, graph, num_layers, scale, user_index, item_index
    if isinstance(graph, NormalizedGraph):
        return NormalizedRows.apply(*args)
    return light_rows.reference(*args) if needs_reference(graph) else _LightRows.apply(*args)


def _shared_rows(
    user: Tensor,
    item: Tensor,
    graph: BipartiteGraph,
    num_layers: int,
    scale: float,
    user_index: UserIndex,
    item_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""The same on several processes, which exchange rows of the batch, and vectors of
    items between hops.
    """
    own = user_index.local
    x_user, x_item = user.index_select(0, own), item.index_select(0, item_index)
    out_user, out_item = x_user, x_item
    for layer in range(1, num_layers + 1):
        if layer < num_layers:
            next_user = propagate(item, graph.to_user, graph.to_user_weight)
            if layer == num_layers - 1:
                item = _read_items(user, graph, own, item_index)
            else:
                item = propagate(user, graph.to_item, graph.to_item_weight)
            user = next_user
            rows = user.index_select(0, own), item.index_select(0, item_index)
        else:
            rows = (
                propagate_rows(item, graph.to_user, graph.to_user_weight, own),
                propagate_rows(user, graph.to_item, graph.to_item_weight, item_index),
            )
        out_user, out_item = out_user + rows[0], out_item + rows[1]
    both = user_index.spread(torch.cat([out_user * scale, x_user], dim=1))
    out_user, x_user = both.chunk(2, dim=1)
    return out_user, out_item * scale, x_user, x_item


def _read_items(user: Tensor, graph: BipartiteGraph, own: Tensor, item_index: Tensor) -> Tensor:
    r"""One hop to the items whose vectors the batch and the last hop read: its items, and
    the neighbors of its users on any process. If these are fewer than half of all
    items, the others are zero and not exchanged.
    """
    edges, weight, shard = graph.to_item, graph.to_item_weight, shard_of(graph.to_item)
    assert shard is not None
    read = torch.zeros(edges.get_sparse_size(1), dtype=torch.uint8, device=user.device)
    read[item_index] = 1
    read[neighbors(*csc(graph.to_user), own)] = 1
    index = shard.users.all_reduce(read, 'read', 'max').nonzero().view(-1)
    if 2 * index.numel() >= read.numel():
        return propagate(user, edges, weight)
    item = shard.at_items(propagate_rows(user, edges._replace(shard=None), weight, index))
    return item.new_zeros(read.numel(), item.size(1)).index_copy(0, index, item)


class _LightRows(Function):
    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        item: Tensor,
        graph: BipartiteGraph,
        num_layers: int,
        scale: float,
        user_index: Tensor,
        item_index: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.options = graph, num_layers, scale, (user.size(0), item.size(0))
        ctx.save_for_backward(user_index, item_index)
        to_user, to_item = _matrices(graph)
        x_user, x_item = user.index_select(0, user_index), item.index_select(0, item_index)
        out_user, out_item = x_user.clone(), x_item.clone()
        for layer in range(1, num_layers + 1):
            if layer == num_layers:
                out_user += csr_matmul_rows(*to_user, item, user_index)
                out_item += csr_matmul_rows(*to_item, user, item_index)
                break
            user, item = csr_matmul(*to_user, item), csr_matmul(*to_item, user)
            out_user += user.index_select(0, user_index)
            out_item += item.index_select(0, item_index)
        return out_user.mul_(scale), out_item.mul_(scale), x_user, x_item

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, out_user: Tensor, out_item: Tensor, x_user: Tensor, x_item: Tensor
    ) -> tuple[OptTensor, ...]:
        graph, num_layers, scale, (num_users, num_items) = ctx.options
        user_index, item_index = ctx.saved_tensors
        to_user, to_item = _transposed(graph)
        out_user, out_item = out_user * scale, out_item * scale
        user = out_user.new_zeros(num_users, out_user.size(1))
        item = out_item.new_zeros(num_items, out_item.size(1))
        for layer in range(num_layers + 1):
            if layer > 0:
                user, item = csr_matmul(*to_user, item), csr_matmul(*to_item, user)
            if layer == num_layers:
                out_user, out_item = out_user + x_user, out_item + x_item
            user.index_add_(0, user_index, out_user)
            item.index_add_(0, item_index, out_item)
        return user, item, None, None, None, None, None


@has_kernel
@full_precision
def weighted_sum(
    user: Tensor,
    item: Tensor,
    to_user_weight: Tensor,
    to_item_weight: Tensor,
    graph: BipartiteGraph,
    num_layers: int,
) -> Pair:
    r"""Sum over the layers of LightGCN with learned edge weights,

    .. math::
        \mathbf{X} = \sum_{l=0}^{L} \mathbf{A}^l \mathbf{X}^{(0)} .

    The kernel uses Horner's rule.

    Shapes:
        - **input:** user features :math:`(M, F)`, item features
          :math:`(N, F)`, edge weights :math:`(|\mathcal{E}|)` and
          :math:`(|\mathcal{E}|)` in the order of the graph
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`
    """
    # Dynamo of PyTorch 2.11 does not support `_replace`.
    graph = BipartiteGraph(graph.to_user, to_user_weight, graph.to_item, to_item_weight)
    return light_sum.reference(user, item, graph, num_layers)


@weighted_sum.kernel
def _(
    user: Tensor,
    item: Tensor,
    to_user_weight: Tensor,
    to_item_weight: Tensor,
    graph: BipartiteGraph,
    num_layers: int,
) -> Pair:
    args = user, item, to_user_weight, to_item_weight, graph, num_layers
    if shard_of(graph.to_item) is not None:
        return weighted_sum.reference(*args)
    return _WeightedSum.apply(*args)


class _WeightedSum(Function):
    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        item: Tensor,
        to_user: Tensor,
        to_item: Tensor,
        graph: BipartiteGraph,
        num_layers: int,
    ) -> Pair:
        matrices = matrix(graph.to_user, to_user), matrix(graph.to_item, to_item)
        layers = [(user, item)]
        for _ in range(num_layers):
            x_user, x_item = layers[-1]
            layers.append(
                (
                    csr_matmul(*matrices[0], x_item).add_(user),
                    csr_matmul(*matrices[1], x_user).add_(item),
                )
            )
        ctx.graph = graph
        ctx.save_for_backward(to_user, to_item, *(x for layer in layers[:-1] for x in layer))
        return layers[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_user: Tensor, grad_item: Tensor) -> tuple[OptTensor, ...]:
        to_user, to_item, *layers = ctx.saved_tensors
        graph = ctx.graph
        from_user = transposed(graph.to_user, to_user)
        from_item = transposed(graph.to_item, to_item)
        grad_to_user, grad_to_item = torch.zeros_like(to_user), torch.zeros_like(to_item)
        x_user, x_item = grad_user.contiguous(), grad_item.contiguous()
        grad_user, grad_item = x_user.clone(), x_item.clone()
        while layers:
            *layers, user, item = layers
            grad_to_user += edge_dot(item, x_user, graph.to_user)
            grad_to_item += edge_dot(user, x_item, graph.to_item)
            x_user, x_item = csr_matmul(*from_item, x_item), csr_matmul(*from_user, x_user)
            grad_user, grad_item = grad_user.add_(x_user), grad_item.add_(x_item)
        return grad_user, grad_item, grad_to_user, grad_to_item, None, None


@has_kernel
@full_precision
def refined_sum(
    user: Tensor,
    item: Tensor,
    graph: BipartiteGraph,
    num_layers: int,
    shard: UserShard | None = None,
) -> Pair:
    r"""Sum over the layers of LayerGCN,

    .. math::
        \mathbf{Y}^{(l+1)} = \mathbf{A} \mathbf{X}^{(l)}, \qquad
        \mathbf{x}_v^{(l+1)} = \cos(\mathbf{y}_v^{(l+1)}, \mathbf{x}_v^{(0)})
        \, \mathbf{y}_v^{(l+1)}, \qquad
        \mathbf{X} = \sum_{l=1}^{L} \mathbf{X}^{(l)} .

    The kernel computes the cosine as :math:`\mathbf{y}^{\top} \mathbf{e} /
    \| \mathbf{y} \|` for unit rows :math:`\mathbf{e}` of the first layer. Per
    layer, it stores only :math:`\mathbf{y}`, its norms and the cosines.

    Args:
        user: User features.
        item: Item features.
        graph: The user-item graph.
        num_layers: Number of hops :math:`L`.
        shard: The columns of this process, if several share them. Norms and inner
            products are then summed over these processes.

    Shapes:
        - **input:** user features :math:`(M, F)`, item features :math:`(N, F)`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`
    """
    egos = unit_rows(user, shard), unit_rows(item, shard)
    outs, xs = [torch.zeros_like(user), torch.zeros_like(item)], (user, item)
    for _ in range(num_layers):
        ys = hop(*xs, graph)
        cosines = [(unit_rows(y, shard) * e).sum(-1, keepdim=True) for y, e in zip(ys, egos)]
        cosines = cosines if shard is None else [shard.over_columns(x) for x in cosines]
        xs = cosines[0] * ys[0], cosines[1] * ys[1]
        outs = [out + x for out, x in zip(outs, xs)]
    return outs[0], outs[1]


def unit_rows(x: Tensor, shard: UserShard | None = None) -> Tensor:
    r"""Scales rows to unit length, also if several processes share the columns."""
    if shard is None or shard.columns.size == 1:
        return F.normalize(x, eps=EPS)
    square = shard.over_columns(x.square().sum(dim=-1, keepdim=True))
    return x / square.clamp_min(EPS**2).sqrt()


@refined_sum.kernel
def _(
    user: Tensor,
    item: Tensor,
    graph: BipartiteGraph,
    num_layers: int,
    shard: UserShard | None = None,
) -> Pair:
    if needs_reference(graph) or (shard is not None and shard.columns.size > 1):
        return refined_sum.reference(user, item, graph, num_layers, shard)
    return _RefinedSum.apply(user, item, graph, num_layers)


class _RefinedSum(Function):
    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, graph: BipartiteGraph, num_layers: int
    ) -> tuple[Tensor, ...]:
        (user_ptr, user_col), (item_ptr, item_col) = csc(graph.to_user), csc(graph.to_item)
        norms = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (user, item)]
        egos = [x / norm.clamp_min(EPS) for x, norm in zip((user, item), norms)]
        kept, out = [*egos, *norms], []
        ys, weights = (user, item), (graph.to_user_weight, graph.to_item_weight)
        for layer in range(num_layers):
            if layer > 0:  # There are fewer edge weights than row entries.
                weights = (
                    graph.to_user_weight * kept[-1].view(-1).index_select(0, user_col),
                    graph.to_item_weight * kept[-4].view(-1).index_select(0, item_col),
                )
            ys = (
                csr_matmul(user_ptr, user_col, weights[0], ys[1]),
                csr_matmul(item_ptr, item_col, weights[1], ys[0]),
            )
            for side, (y, ego) in enumerate(zip(ys, egos)):
                norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
                scale = (y * ego).sum(dim=-1, keepdim=True).div_(norm.clamp_min(EPS))
                kept += [y, norm, scale]
                if layer == 0:
                    out.append(y * scale)
                else:
                    out[side].addcmul_(y, scale)
        ctx.graph = graph
        ctx.save_for_backward(*kept)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[OptTensor, ...]:
        to_user, to_item = _transposed(ctx.graph)
        ego_user, ego_item, norm_user, norm_item, *kept = ctx.saved_tensors
        grads = [grad.contiguous() for grad in outputs]
        egos = [torch.zeros_like(ego_user), torch.zeros_like(ego_item)]
        x_user, x_item = grads
        while kept:
            *kept, y_user, n_user, s_user, y_item, n_item, s_item = kept
            y_user = _refined_grad(x_user, y_user, n_user, s_user, ego_user, egos[0])
            y_item = _refined_grad(x_item, y_item, n_item, s_item, ego_item, egos[1])
            x_user, x_item = csr_matmul(*to_user, y_item), csr_matmul(*to_item, y_user)
            if kept:
                x_user, x_item = x_user.add_(grads[0]), x_item.add_(grads[1])
        x_user = x_user.add_(normalize_grad(egos[0], ego_user, norm_user, EPS))
        x_item = x_item.add_(normalize_grad(egos[1], ego_item, norm_item, EPS))
        return x_user, x_item, None, None


def _refined_grad(
    grad: Tensor, y: Tensor, norm: Tensor, scale: Tensor, ego: Tensor, grad_ego: Tensor
) -> Tensor:
    r"""The gradient of :math:`\mathbf{y}` from that of :math:`\mathbf{x}`. Also adds
    the gradient of :math:`\mathbf{e}` to :obj:`grad_ego`.
    """
    length = norm.clamp_min(EPS)
    dot = (grad * y).sum(dim=-1, keepdim=True).div_(length)
    grad_ego.addcmul_(y, dot)
    out = (grad * scale).addcmul_(ego, dot)
    radial = dot * scale / length
    return out.addcmul_(y, radial * (norm >= EPS), value=-1)
