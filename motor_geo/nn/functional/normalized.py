r"""Sums over the layers of LightGCN on a graph that stores no edge weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.typing import OptTensor

from motor_geo.nn.functional.autocast import Function
from motor_geo.nn.functional.distinct import synchronous
from motor_geo.nn.functional.spmm import BLOCK, csr_blocks, csr_matmul, csr_matmul_rows
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

    def to_users(self, item: Tensor, last: bool = False) -> Tensor:
        r"""Means over the items of every user, scaled back after the :obj:`last` hop."""
        return _sums(self.graph.to_user, item).mul_(self._scale(0, last))

    def to_items(self, user: Tensor, weight: OptTensor = None, last: bool = False) -> Tensor:
        r"""Means over the users of every item, scaled back after the :obj:`last` hop.
        Users may be weighted on edges, **[E]**.
        """
        return _sums(self.graph.to_item, user, weight).mul_(self._scale(1, last))

    def _scale(self, side: int, last: bool) -> Tensor:
        return self.root[side].reciprocal() if last else self.inverse[side]


def _sums(edges: SortedEdges, x: Tensor, weight: OptTensor = None) -> Tensor:
    return csr_matmul(edges.ptr, edges.source, weight, x)


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
        next_item = scaled.to_items(x_user).add_(z_item)
        del x_user  # User tables are large: the next one takes its place.
        x_user, x_item = scaled.to_users(x_item).add_(z_user), next_item
    del z_user, z_item
    next_item = scaled.to_items(x_user, last=True).add_(item, alpha=scale)
    del x_user
    return scaled.to_users(x_item, last=True).add_(user, alpha=scale), next_item


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
                _add_sums(out_user, graph.to_user, item, user_index, root_user)
                _add_sums(out_item, graph.to_item, user, item_index, root_item, weight)
                break
            next_item, weight = scaled.to_items(user, weight), None
            del user  # As above.
            user, item = scaled.to_users(item), next_item
            _add_rows(out_user, user, user_index, root_user)
            _add_rows(out_item, item, item_index, root_item)
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
        user = out_user.new_zeros(num_users, out_user.size(1))
        item = out_item.new_zeros(num_items, out_item.size(1))
        for layer in range(num_layers):
            for part, grad, root in _blocks(user_index, out_user, root_user):
                user.index_add_(0, part, (grad * scale).div_(root))
            for part, grad, root in _blocks(item_index, out_item, root_item):
                item.index_add_(0, part, (grad * scale).div_(root))
            last = layer == num_layers - 1
            next_item = scaled.to_items(user, last=last)
            del user  # As above.
            user, item = scaled.to_users(item, last), next_item
        for part, grad, own in _blocks(user_index, out_user, x_user):
            user.index_add_(0, part, (grad * scale).add_(own))
        for part, grad, own in _blocks(item_index, out_item, x_item):
            item.index_add_(0, part, (grad * scale).add_(own))
        return user, item, None, None, None, None, None


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    r"""The rows of a batch in blocks, so that no temporary copies of a large batch are made."""
    return zip(*(x.split(BLOCK) for x in tensors))


def _add_rows(out: Tensor, x: Tensor, index: Tensor, root: Tensor) -> None:
    for part, rows, by in _blocks(out, index, root):
        part.add_(x.index_select(0, rows).mul_(by))


def _add_sums(
    out: Tensor,
    edges: SortedEdges,
    x: Tensor,
    index: Tensor,
    root: Tensor,
    weight: OptTensor = None,
) -> None:
    if not synchronous(index):
        out.add_(csr_matmul_rows(edges.ptr, edges.source, weight, x, index).div_(root))
        return
    for rows, sums in csr_blocks(edges.ptr, edges.source, weight, x, index):
        out[rows].add_(sums.div_(root[rows]))
