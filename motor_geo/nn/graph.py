r"""User-item graphs in a layout for fast propagation, and their edge weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import OptTensor

from motor_geo.parallel.user_shard import UserShard
from motor_geo.typing import MANY_INTERACTIONS


@torch.compiler.disable  # A compiled region cannot fill the caches of EdgeIndex.
@torch.inference_mode(False)  # Training can reuse the result.
def sorted_edge_index(
    edge_index: Tensor, num_src: int, num_dst: int
) -> tuple[EdgeIndex, Tensor | None]:
    r"""Converts :obj:`edge_index` to the layout on which
    :class:`~motor_geo.nn.conv.Propagate` is fastest: sorted by target, with a
    cached transpose.

    Args:
        edge_index: Edges from sources to targets.
        num_src: Number of source nodes.
        num_dst: Number of target nodes.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** edge indices :math:`(2, |\mathcal{E}|)`, and the
          permutation :math:`(|\mathcal{E}|)` to apply to edge weights, or
          :obj:`None` if the input was already sorted
    """
    perm = None
    if edge_index.is_inference():
        edge_index = edge_index.clone()
    if edge_index.size(1) > 1 and bool((edge_index[1].diff() < 0).any()):
        perm = edge_index[1].argsort(stable=True)
        edge_index = edge_index[:, perm]
    out = EdgeIndex(edge_index.contiguous(), sparse_size=(num_src, num_dst), sort_order='col')
    return out.fill_cache_(), perm


class SortedEdges(NamedTuple):
    r"""Edges from sources to targets, and their transpose, both sorted by target in
    compressed form. It takes a fraction of the memory of an
    :class:`~torch_geometric.EdgeIndex` with its caches, and stands in for one in
    the functions and layers of this package. The tensors of
    :meth:`as_tensor` are new in every call.
    """

    ptr: Tensor  # Where the sources of every target begin, [T + 1].
    source: Tensor  # [E]
    weight: OptTensor  # Weights that the graph was built with, [E].
    out_ptr: Tensor  # The same of the transpose: where the targets of every source begin, [S + 1].
    target: Tensor  # [E], in the order of the transpose.
    out_weight: OptTensor  # [E], in the order of the transpose.
    shard: UserShard | None = None  # The part of all users, if the sources are one.

    def size(self, dim: int) -> int:
        r"""The size of the tensor of :meth:`as_tensor` in a dimension."""
        return (2, self.source.numel())[dim]

    def get_sparse_size(self, dim: int) -> int:
        r"""The number of sources (0) or of targets (1)."""
        return (self.out_ptr, self.ptr)[dim].numel() - 1

    def sparse_size(self) -> tuple[int, int]:
        r"""The numbers of sources and of targets."""
        return self.get_sparse_size(0), self.get_sparse_size(1)

    def degree(self) -> Tensor:
        r"""The number of edges of every target, **[T]**, over the users of all
        processes.
        """
        count = self.ptr.diff()
        return count if self.shard is None else self.shard.degree(count)

    def spread(self, x: Tensor) -> Tensor:
        r"""The values of targets **[T]** at their edges, **[E]**."""
        return x.repeat_interleave(self.ptr.diff(), output_size=self.size(1))

    def as_tensor(self) -> Tensor:
        r"""The edges as a plain tensor, **[2, E]**."""
        return torch.stack([self.source.long(), _targets(self.ptr, self.source)])

    def to_edge_index(self) -> EdgeIndex:
        r"""The edges as an :class:`~torch_geometric.EdgeIndex` with filled caches."""
        out = sorted_edge_index(self.as_tensor(), *self.sparse_size())[0]
        setattr(out, 'shard', self.shard)  # noqa: B010
        return out

    def order(self) -> Tensor:
        r"""The position of every edge of the transpose among these edges, **[E]**."""
        return self.source.long().sort(stable=self.source.numel() >= MANY_INTERACTIONS).indices


def _targets(ptr: Tensor, source: Tensor) -> Tensor:
    target = torch.arange(ptr.numel() - 1, device=ptr.device)
    return target.repeat_interleave(ptr.diff(), output_size=source.numel())


class BipartiteGraph(NamedTuple):
    r"""Both directions of a user-item graph with their edge weights. Edges of
    either direction are sorted by target.
    """

    to_user: SortedEdges  # items -> users
    to_user_weight: Tensor
    to_item: SortedEdges  # users -> items
    to_item_weight: Tensor

    @classmethod
    @torch.inference_mode(False)  # Training can reuse the result.
    def from_edges(
        cls,
        edge_index: Tensor,
        num_users: int,
        num_items: int,
        edge_weight: Tensor,
        shard: UserShard | None = None,
    ) -> BipartiteGraph:
        r"""Builds both directions from user-item edges **[2, E]** and their
        weights **[E]**. If the edges are sorted by user and item, the graph reads
        their items in place.
        """
        shared = _shared(edge_index)
        edges = _sort(edge_index, num_users, num_items, edge_weight, shared)
        to_user, to_item = (_with_transpose(*pair) for pair in (edges, edges[::-1]))
        assert to_user.weight is not None and to_item.weight is not None
        return cls(to_user, to_user.weight, to_item._replace(shard=shard), to_item.weight)


class NormalizedGraph(NamedTuple):
    r"""Both directions of a user-item graph with symmetric normalization,
    :math:`1 / \sqrt{\deg(u) \deg(i)}`. They share their memory, and edge
    weights are not stored, since they follow from the degrees.
    """

    to_user: SortedEdges  # items -> users
    to_item: SortedEdges  # users -> items

    @classmethod
    @torch.inference_mode(False)  # Training can reuse the result.
    def from_edges(cls, edge_index: Tensor, num_users: int, num_items: int) -> NormalizedGraph:
        r"""Builds both directions from user-item edges **[2, E]**, see
        :meth:`BipartiteGraph.from_edges`.
        """
        user, item = _sort(edge_index, num_users, num_items)
        return cls(SortedEdges(*user, *item), SortedEdges(*item, *user))

    def weighted(self, dtype: torch.dtype) -> BipartiteGraph:
        r"""The same graph with edge weights."""
        user, item = (_sym_weight(edges).to(dtype) for edges in self)
        halves = (*self.to_user[:2], user), (*self.to_item[:2], item)
        to_user, to_item = SortedEdges(*halves[0], *halves[1]), SortedEdges(*halves[1], *halves[0])
        return BipartiteGraph(to_user, user, to_item, item)


def _sym_weight(edges: SortedEdges) -> Tensor:
    degree = edges.degree()
    of_target = degree.double().repeat_interleave(degree, output_size=edges.size(1))
    of_source = edges.out_ptr.diff().double().index_select(0, edges.source)
    return (of_target * of_source).rsqrt()


def _shared(edge_index: Tensor) -> bool:
    # Of fewer edges, sums in backward passes have the order of EdgeIndex.
    return edge_index.size(-1) >= MANY_INTERACTIONS


Half = tuple[Tensor, Tensor, OptTensor]  # Pointers, sources and weights of a direction.


def _sort(
    edge_index: Tensor,
    num_users: int,
    num_items: int,
    edge_weight: OptTensor = None,
    shared: bool = True,
) -> tuple[Half, Half]:
    r"""Edges to users and edges to items. If they are :obj:`shared`, either are the
    transpose of the others: sources are in ascending order. Otherwise, they keep
    the order of the input.
    """
    if edge_index.is_inference():
        edge_index = edge_index.clone()
        edge_weight = None if edge_weight is None else edge_weight.clone()
    key = edge_index[0].long() * num_items + edge_index[1] if shared else edge_index[0]
    given = edge_index, edge_weight
    if bool((key[1:] < key[:-1]).any()):
        order = key.argsort(stable=True)
        edge_index = narrow(edge_index[:, order])
        edge_weight = None if edge_weight is None else edge_weight[order]
    del key
    to_user = _pointers(edge_index[0], num_users, edge_index.dtype), edge_index[1], edge_weight
    (user, item), edge_weight = (edge_index, edge_weight) if shared else given
    order = item.argsort(stable=True)
    source = narrow(user.index_select(0, order))
    weight = None if edge_weight is None else edge_weight.index_select(0, order)
    return to_user, (_pointers(item, num_items, source.dtype), source, weight)


def _with_transpose(own: Half, other: Half) -> SortedEdges:
    edges = SortedEdges(*own, *other)
    if edges.size(1) >= MANY_INTERACTIONS:
        return edges
    order = edges.order()
    assert edges.weight is not None
    return SortedEdges(
        *own,
        edges.out_ptr,
        narrow(_targets(edges.ptr, edges.source).index_select(0, order)).to(edges.target.dtype),
        edges.weight.index_select(0, order),
    )


def narrow(index: Tensor) -> Tensor:
    r"""Indices of nodes in 32 bits if the number of edges fits: kernels take both in
    the same type.
    """
    return index.int() if index.size(-1) < 2**31 else index


def _pointers(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    return F.pad(index.bincount(minlength=size).cumsum(0), (1, 0)).to(dtype)


def build_graph(
    edge_index: Tensor,
    num_users: int,
    num_items: int,
    dtype: torch.dtype,
    shard: UserShard | None = None,
) -> BipartiteGraph:
    r"""Builds a user-item graph with symmetric normalization.

    Args:
        edge_index: User-item edges.
        num_users: Number of users.
        num_items: Number of items.
        dtype: Type of the edge weights.
        shard: The part of all users that the graph has.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
    """
    weight = sym_norm(edge_index, num_users, num_items, dtype, shard)
    return BipartiteGraph.from_edges(edge_index, num_users, num_items, weight, shard)


def shard_of(edges: object) -> UserShard | None:
    r"""The part of all users that edges to items come from, or :obj:`None` if they
    come from all users or from items.
    """
    return getattr(edges, 'shard', None)


def mean_graph(graph: BipartiteGraph) -> BipartiteGraph:
    r"""The same edges, weighted by :math:`1 / \deg(v)` of their target :math:`v`,
    so that propagation averages neighbors.
    """
    weights = []
    for edges, weight in [graph[:2], graph[2:]]:
        weights.append(edges.spread(edges.degree().to(weight.dtype).reciprocal()))
    return graph._replace(to_user_weight=weights[0], to_item_weight=weights[1])


def opposite_edges(graph: BipartiteGraph) -> Tensor:
    r"""Position of every edge to an item among the edges to users.

    Shapes:
        - **output:** positions :math:`(|\mathcal{E}|)`
    """
    item, user = graph.to_user.as_tensor()
    num_items = graph.to_user.get_sparse_size(0)
    order = (user * num_items + item).argsort()
    user, item = graph.to_item.as_tensor()
    rank = torch.empty_like(order)
    rank[(user * num_items + item).argsort()] = torch.arange(order.numel(), device=order.device)
    return order[rank]


def shared_order(shard: UserShard, num_items: int) -> tuple[Tensor, Tensor]:
    r"""Positions of the edges of a process among those of the graph of all users, for
    both directions, so that all processes can draw one number for every edge.

    Args:
        shard: The users of the process.
        num_items: Number of items.

    Shapes:
        - **output:** positions :math:`(|\mathcal{E}|)` and :math:`(|\mathcal{E}|)` in
          the order of :class:`BipartiteGraph`
    """
    edge_index = shard.edge_index - shard.edge_index.new_tensor([[shard.first], [0]])
    number = torch.arange(edge_index.size(1), device=edge_index.device)
    size = len(shard), num_items
    whole = _sort(edge_index, *size, number, shard.num_edges >= MANY_INTERACTIONS)
    part = _sort(edge_index, *size, number, _shared(number))
    # Edges of an item come after those of smaller items, and of the same item on earlier processes.
    counts = torch.stack(shard.users.gather(whole[1][0].diff().long(), 'degrees'))
    before = counts[: shard.users.rank].sum(0) + F.pad(counts.sum(0).cumsum(0), (1, 0))[:-1]
    shift = before - whole[1][0][:-1]
    places = number + shard.edges.start, number + shift.repeat_interleave(counts[shard.users.rank])
    out = []
    for place, (*_, order), (*_, own) in zip(places, whole, part):
        assert order is not None and own is not None
        out.append(torch.empty_like(order).index_copy_(0, order, place).index_select(0, own))
    return out[0], out[1]


def bipartite_degree(
    edge_index: Tensor, num_users: int, num_items: int, shard: UserShard | None = None
) -> tuple[Tensor, Tensor]:
    r"""Degrees of the user and of the item of every edge, **[E]** and **[E]**, in
    float64.
    """
    user, item = edge_index
    user_degree = user.bincount(minlength=num_users).double()
    item_degree = item.bincount(minlength=num_items).double()
    item_degree = item_degree if shard is None else shard.degree(item_degree)
    return user_degree.index_select(0, user), item_degree.index_select(0, item)


def sym_norm(
    edge_index: Tensor,
    num_users: int,
    num_items: int,
    dtype: torch.dtype | None = None,
    shard: UserShard | None = None,
) -> Tensor:
    r"""Symmetric normalization of a user-item graph without self loops,
    :math:`1 / \sqrt{\deg(u) \deg(i)}` for every edge.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** edge weights :math:`(|\mathcal{E}|)`
    """
    user_degree, item_degree = bipartite_degree(edge_index, num_users, num_items, shard)
    weight = (user_degree * item_degree).rsqrt()
    return weight.to(dtype or torch.get_default_dtype())
