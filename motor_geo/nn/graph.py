r"""User-item graphs in a layout for fast propagation, their edge weights, and
pruning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import degree

from motor_geo.nn.memo import Memo
from motor_geo.parallel.users import UserShard

_SHARD = 'shard'  # Attribute of edges to items whose sources are a part of all users.


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


class BipartiteGraph(NamedTuple):
    r"""Both directions of a user-item graph with their edge weights. Each direction
    is sorted by target and has a cached transpose. If the users are a part of all
    users (:class:`~motor_geo.parallel.UserShard`), sums at items and degrees of
    items are those over all users.
    """

    to_user: EdgeIndex  # items -> users
    to_user_weight: Tensor
    to_item: EdgeIndex  # users -> items
    to_item_weight: Tensor

    @classmethod
    def from_edges(
        cls,
        edge_index: Tensor,
        num_users: int,
        num_items: int,
        edge_weight: Tensor,
        shard: UserShard | None = None,
    ) -> BipartiteGraph:
        r"""Builds both directions from user-item edges **[2, E]** and their
        weights **[E]**.
        """
        to_user, user_perm = sorted_edge_index(edge_index.flip(0), num_items, num_users)
        to_item, item_perm = sorted_edge_index(edge_index, num_users, num_items)
        setattr(to_item, _SHARD, shard)
        return cls(
            to_user,
            edge_weight if user_perm is None else edge_weight[user_perm],
            to_item,
            edge_weight if item_perm is None else edge_weight[item_perm],
        )


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


def shard_of(edge_index: Tensor) -> UserShard | None:
    r"""The part of all users that edges of a :class:`BipartiteGraph` come from, or
    :obj:`None` if they come from all users or from items.
    """
    return getattr(edge_index, _SHARD, None)


def in_degree(edge_index: EdgeIndex) -> Tensor:
    r"""Number of incoming edges of every target, for edges sorted by target."""
    count, shard = edge_index.get_csc()[0][0].diff(), shard_of(edge_index)
    return count if shard is None else shard.degree(count)


def mean_graph(graph: BipartiteGraph) -> BipartiteGraph:
    r"""The same edges, weighted by :math:`1 / \deg(v)` of their target :math:`v`,
    so that propagation averages neighbors.
    """
    weights = []
    for edge_index, weight in [graph[:2], graph[2:]]:
        share = in_degree(edge_index).to(weight.dtype).reciprocal()
        weights.append(share.index_select(0, edge_index.as_tensor()[1]))
    return graph._replace(to_user_weight=weights[0], to_item_weight=weights[1])


def opposite_edges(graph: BipartiteGraph) -> Tensor:
    r"""Position of every edge to an item among the edges to users.

    Shapes:
        - **output:** positions :math:`(|\mathcal{E}|)`
    """
    item, user = graph.to_user.as_tensor()
    num_items = graph.to_user.sparse_size(0)
    order = (user * num_items + item).argsort()
    user, item = graph.to_item.as_tensor()
    rank = torch.empty_like(order)
    rank[(user * num_items + item).argsort()] = torch.arange(order.numel(), device=order.device)
    return order[rank]


def bipartite_degree(
    edge_index: Tensor, num_users: int, num_items: int, shard: UserShard | None = None
) -> tuple[Tensor, Tensor]:
    r"""Degrees of the user and of the item of every edge, **[E]** and **[E]**, in
    float64.
    """
    user, item = edge_index
    user_degree = degree(user, num_users, torch.float64)
    item_degree = degree(item, num_items, torch.float64)
    item_degree = item_degree if shard is None else shard.degree(item_degree)
    return user_degree[user], item_degree[item]


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


def num_kept_edges(num_edges: int, rho: float) -> int:
    r"""Number of edges that remain after pruning a fraction :obj:`rho`."""
    return int(num_edges * (1.0 - rho))


def degree_sensitive_pruning(
    edge_index: Tensor,
    num_users: int,
    num_items: int,
    rho: float,
    generator: torch.Generator | None = None,
    shard: UserShard | None = None,
) -> Tensor:
    r"""Draws the edges that survive the degree-sensitive pruning of the `"A Tale
    of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
    Recommendation" <https://arxiv.org/abs/2211.06924>`_ paper: a weighted sample
    without replacement, where an edge has weight
    :math:`1 / \sqrt{\deg(u) \deg(i)}`.

    Args:
        edge_index: User-item edges.
        num_users: Number of users.
        num_items: Number of items.
        rho: Fraction of edges to remove.
        generator: Random generator on the device of the edges; :obj:`None` uses
            the global one.
        shard: The part of all users that the edges come from. All processes
            draw for all edges.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** ascending positions of kept edges
          :math:`(\lfloor (1 - \rho) |\mathcal{E}| \rfloor)`
    """
    weight = sym_norm(edge_index, num_users, num_items, torch.float32, shard)
    # The n largest values of w / Exp(1) are a weighted sample without replacement. This works
    # for any number of edges, while `torch.multinomial` is limited to 2^24.
    if shard is not None:
        num_edges = shard.edge_index.size(1)
        noise = weight.new_empty(num_edges).exponential_(generator=generator)[shard.edges]
        return shard.kept(weight / noise, num_kept_edges(num_edges, rho))
    noise = torch.empty_like(weight).exponential_(generator=generator)
    keep = (weight / noise).topk(num_kept_edges(weight.numel(), rho), sorted=False).indices
    return keep.sort().values


def uniform_pruning(
    edge_index: Tensor,
    rho: float,
    generator: torch.Generator | None = None,
    shard: UserShard | None = None,
) -> Tensor:
    r"""Draws the edges that survive uniform pruning.

    Args:
        edge_index: User-item edges.
        rho: Fraction of edges to remove.
        generator: Random generator on the device of the edges; :obj:`None` uses
            the global one.
        shard: The part of all users that the edges come from. All processes
            draw for all edges.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** ascending positions of kept edges
          :math:`(\lfloor (1 - \rho) |\mathcal{E}| \rfloor)`
    """
    num_edges = (edge_index if shard is None else shard.edge_index).size(1)
    order = torch.randperm(num_edges, generator=generator, device=edge_index.device)
    order = order[: num_kept_edges(num_edges, rho)]
    if shard is None:
        return order.sort().values
    kept = torch.zeros(num_edges, dtype=torch.bool, device=order.device).index_fill_(0, order, True)
    return kept[shard.edges].nonzero().view(-1)


class PrunedGraph:
    r"""Holds the pruned version of one graph. :meth:`get` returns it only for the
    edges that :meth:`set` pruned: for another graph, or for the same tensor after
    an in-place change, it returns :obj:`None`. Copies and pickles are empty.

    .. code-block:: python

        pruned = PrunedGraph()
        pruned.set(keep, edge_index, num_users, num_items, dtype)
        graph = pruned.get(edge_index, num_users, num_items, dtype)
    """

    def __init__(self) -> None:
        self._memo = Memo()

    def set(
        self,
        keep: Tensor,
        edge_index: Tensor,
        num_users: int,
        num_items: int,
        dtype: torch.dtype,
        shard: UserShard | None = None,
    ) -> None:
        r"""Prunes a graph.

        Args:
            keep: Positions of kept edges.
            edge_index: All user-item edges.
            num_users: Number of users.
            num_items: Number of items.
            dtype: Type of the edge weights.
            shard: The part of all users that the edges come from.

        Shapes:
            - **input:** positions :math:`(|\mathcal{E}^{\prime}|)`, edge indices
              :math:`(2, |\mathcal{E}|)`

        Raises:
            ValueError: If the edges were created under
                :obj:`torch.inference_mode`, which does not track in-place
                changes.
        """
        if edge_index.is_inference():
            raise ValueError(
                "Edges created under 'torch.inference_mode' cannot be pruned: clone them outside "
                'of it first'
            )
        size = num_users, num_items
        self._memo.clear()
        args = *size, dtype
        self._memo(lambda: build_graph(edge_index[:, keep], *args, shard), edge_index, *args)

    def get(
        self, edge_index: Tensor, num_users: int, num_items: int, dtype: torch.dtype
    ) -> BipartiteGraph | None:
        r"""The pruned graph of these edges, or :obj:`None` if they were not pruned."""
        return self._memo.get(edge_index, num_users, num_items, dtype)
