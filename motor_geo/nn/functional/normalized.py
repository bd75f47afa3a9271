r"""Sums over the layers of LightGCN on a graph that stores no edge weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.typing import OptTensor

from motor_geo.nn.functional.autocast import Function
from motor_geo.nn.functional.spmm import csr_matmul, csr_matmul_rows
from motor_geo.nn.graph import NormalizedGraph, SortedEdges

Pair = tuple[Tensor, Tensor]  # Users and items.


class Scaled:
    r"""Hops on vectors that are divided by the square roots of degrees. With
    :math:`\mathbf{Z} = \mathbf{D}^{-1/2} \mathbf{X}`, the hop
    :math:`\mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2} \mathbf{X}` is the mean
    over neighbors, :math:`\mathbf{D}^{-1} \mathbf{A} \mathbf{Z}`. Its transpose
    has the same form.

    Args:
        graph: The user-item graph.
        like: Vectors that have the type to compute in.
    """

    def __init__(self, graph: NormalizedGraph, like: Tensor):
        self.graph = graph
        degrees = [edges.degree().clamp(min=1).view(-1, 1) for edges in graph]
        self.root = [degree.to(like.dtype).sqrt_() for degree in degrees]
        self.inverse = [degree.to(like.dtype).reciprocal_() for degree in degrees]

    def rows(self, user: Tensor, item: Tensor) -> Pair:
        r"""The square roots for some users and items, **[B, 1]** and **[C, 1]**."""
        return self.root[0].index_select(0, user), self.root[1].index_select(0, item)

    def hop(self, user: Tensor, item: Tensor, weight: OptTensor = None, last: bool = False) -> Pair:
        r"""Means over neighbors, scaled back after the :obj:`last` hop. Users may be
        weighted on edges, **[E]**.
        """
        (to_user, to_item), (of_user, of_item) = self.graph, self.inverse
        if last:
            of_user, of_item = (root.reciprocal() for root in self.root)
        return _sums(to_user, item).mul_(of_user), _sums(to_item, user, weight).mul_(of_item)


def _sums(edges: SortedEdges, x: Tensor, weight: OptTensor = None) -> Tensor:
    return csr_matmul(edges.ptr, edges.source, weight, x)


def _sums_of(edges: SortedEdges, x: Tensor, index: Tensor, weight: OptTensor = None) -> Tensor:
    return csr_matmul_rows(edges.ptr, edges.source, weight, x, index)


class NormalizedSum(Function):
    r"""See :func:`~motor_geo.nn.functional.layers.light_sum`."""

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, graph: NormalizedGraph, num_layers: int, scale: float
    ) -> Pair:
        ctx.options = graph, num_layers, scale
        return _horner(user, item, graph, num_layers, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, user: Tensor, item: Tensor) -> tuple[OptTensor, ...]:
        return *_horner(user, item, *ctx.options), None, None, None


def _horner(
    user: Tensor, item: Tensor, graph: NormalizedGraph, num_layers: int, scale: float
) -> Pair:
    if num_layers == 0:
        return user * scale, item * scale
    scaled = Scaled(graph, user)
    z_user, z_item = (x * (scale / root) for x, root in zip((user, item), scaled.root))
    x_user, x_item = z_user, z_item
    for _ in range(num_layers - 1):
        x_user, x_item = scaled.hop(x_user, x_item)
        x_user, x_item = x_user.add_(z_user), x_item.add_(z_item)
    x_user, x_item = scaled.hop(x_user, x_item, last=True)
    return x_user.add_(user, alpha=scale), x_item.add_(item, alpha=scale)


class NormalizedRows(Function):
    r"""See :func:`~motor_geo.nn.functional.layers.light_rows`."""

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        item: Tensor,
        graph: NormalizedGraph,
        num_layers: int,
        scale: float,
        user_index: Tensor,
        item_index: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.options = graph, num_layers, scale, (user.size(0), item.size(0))
        ctx.save_for_backward(user_index, item_index)
        x_user, x_item = user.index_select(0, user_index), item.index_select(0, item_index)
        out_user, out_item = x_user.clone(), x_item.clone()
        if num_layers > 0:
            scaled = Scaled(graph, user)
            root_user, root_item = scaled.rows(user_index, item_index)
            item = item / scaled.root[1]
            # A new table of scaled users would take longer than weights of edges.
            inverse = scaled.root[0].view(-1).reciprocal()
            weight: OptTensor = inverse.index_select(0, graph.to_item.source)
        for layer in range(1, num_layers + 1):
            if layer == num_layers:
                out_user += _sums_of(graph.to_user, item, user_index).div_(root_user)
                out_item += _sums_of(graph.to_item, user, item_index, weight).div_(root_item)
                break
            user, item = scaled.hop(user, item, weight)
            weight = None
            out_user += user.index_select(0, user_index).mul_(root_user)
            out_item += item.index_select(0, item_index).mul_(root_item)
        return out_user.mul_(scale), out_item.mul_(scale), x_user, x_item

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, out_user: Tensor, out_item: Tensor, x_user: Tensor, x_item: Tensor
    ) -> tuple[OptTensor, ...]:
        graph, num_layers, scale, (num_users, num_items) = ctx.options
        user_index, item_index = ctx.saved_tensors
        scaled = Scaled(graph, out_user)
        root_user, root_item = scaled.rows(user_index, item_index)
        out_user, out_item = out_user * scale, out_item * scale
        user = out_user.new_zeros(num_users, out_user.size(1))
        item = out_item.new_zeros(num_items, out_item.size(1))
        for layer in range(num_layers):
            user.index_add_(0, user_index, out_user / root_user)
            item.index_add_(0, item_index, out_item / root_item)
            user, item = scaled.hop(user, item, last=layer == num_layers - 1)
        user.index_add_(0, user_index, out_user + x_user)
        item.index_add_(0, item_index, out_item + x_item)
        return user, item, None, None, None, None, None
