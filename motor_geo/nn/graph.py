r"""User-item graphs in the form that propagation is fast on, their edge
weights, and pruning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import degree

from motor_geo.nn.memo import Memo


@torch.compiler.disable  # The caches of EdgeIndex cannot be filled in a compiled region.
@torch.inference_mode(False)  # Training can use what was built before.
def sorted_edge_index(
    edge_index: Tensor, num_src: int, num_dst: int
) -> tuple[EdgeIndex, Tensor | None]:
    r"""Turns :obj:`edge_index` into the form that :class:`~motor_geo.nn.conv.Propagate` is
    fastest on: sorted by target, with its transpose cached.

    Args:
        edge_index: Edges from sources to targets.
        num_src: Number of source nodes.
        num_dst: Number of target nodes.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** edge indices :math:`(2, |\mathcal{E}|)`, the permutation
          :math:`(|\mathcal{E}|)` that edge weights must follow, or
          :obj:`None` if the input was sorted already
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
    r"""Both directions of a user-item graph, each sorted by target with a
    cached transpose, and their edge weights.
    """

    to_user: EdgeIndex  # items -> users
    to_user_weight: Tensor
    to_item: EdgeIndex  # users -> items
    to_item_weight: Tensor

    @classmethod
    def from_edges(
        cls, edge_index: Tensor, num_users: int, num_items: int, edge_weight: Tensor
    ) -> BipartiteGraph:
        r"""Builds both directions from user-item edges **[2, E]** and their
        weights **[E]**.
        """
        to_user, user_perm = sorted_edge_index(edge_index.flip(0), num_items, num_users)
        to_item, item_perm = sorted_edge_index(edge_index, num_users, num_items)
        return cls(
            to_user,
            edge_weight if user_perm is None else edge_weight[user_perm],
            to_item,
            edge_weight if item_perm is None else edge_weight[item_perm],
        )


def build_graph(
    edge_index: Tensor, num_users: int, num_items: int, dtype: torch.dtype
) -> BipartiteGraph:
    r"""A user-item graph with symmetric normalization, from its edges
    **[2, E]**.
    """
    weight = sym_norm(edge_index, num_users, num_items, dtype)
    return BipartiteGraph.from_edges(edge_index, num_users, num_items, weight)


def mean_graph(graph: BipartiteGraph) -> BipartiteGraph:
    r"""The same edges with the weights of a mean over neighbors,
    :math:`1 / \deg(v)` of their target :math:`v`.
    """
    weights = []
    for edge_index, weight in [graph[:2], graph[2:]]:
        degree = edge_index.get_csc()[0][0].diff()
        weights.append(degree.to(weight.dtype).reciprocal().repeat_interleave(degree))
    return graph._replace(to_user_weight=weights[0], to_item_weight=weights[1])


def opposite_edges(graph: BipartiteGraph) -> Tensor:
    r"""Where the edges to items are among the edges to users.

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


def bipartite_degree(edge_index: Tensor, num_users: int, num_items: int) -> tuple[Tensor, Tensor]:
    r"""Degrees in float64 of both ends of every edge, **[E]** and **[E]**."""
    user, item = edge_index
    user_degree = degree(user, num_users, torch.float64)
    item_degree = degree(item, num_items, torch.float64)
    return user_degree[user], item_degree[item]


def sym_norm(
    edge_index: Tensor, num_users: int, num_items: int, dtype: torch.dtype | None = None
) -> Tensor:
    r"""Symmetric normalization of a user-item graph without self loops,
    :math:`1 / \sqrt{\deg(u) \deg(i)}` for every edge.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** edge weights :math:`(|\mathcal{E}|)`
    """
    user_degree, item_degree = bipartite_degree(edge_index, num_users, num_items)
    weight = (user_degree * item_degree).rsqrt()
    return weight.to(dtype or torch.get_default_dtype())


def num_kept_edges(num_edges: int, rho: float) -> int:
    r"""Number of edges that pruning a share :obj:`rho` keeps."""
    return int(num_edges * (1.0 - rho))


def degree_sensitive_pruning(
    edge_index: Tensor,
    num_users: int,
    num_items: int,
    rho: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draws the edges that survive degree-sensitive pruning from the `"A Tale
    of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
    Recommendation" <https://arxiv.org/abs/2211.06924>`_ paper: a sample
    without replacement in which an edge has weight
    :math:`1 / \sqrt{\deg(u) \deg(i)}`.

    Args:
        edge_index: User-item edges.
        num_users: Number of users.
        num_items: Number of items.
        rho: Share of edges to remove.
        generator: Source of randomness, on the device of the edges.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** ascending positions of kept edges
          :math:`(\lfloor (1 - \rho) |\mathcal{E}| \rfloor)`
    """
    weight = sym_norm(edge_index, num_users, num_items, torch.float32)
    # The n largest of w / Exp(1) are a weighted sample without replacement,
    # for any number of edges (`torch.multinomial` stops at 2^24).
    noise = torch.empty_like(weight).exponential_(generator=generator)
    keep = (weight / noise).topk(num_kept_edges(weight.numel(), rho), sorted=False).indices
    return keep.sort().values


def uniform_pruning(
    edge_index: Tensor, rho: float, generator: torch.Generator | None = None
) -> Tensor:
    r"""Draws the edges that survive when all are equally likely to go.

    Args:
        edge_index: User-item edges.
        rho: Share of edges to remove.
        generator: Source of randomness, on the device of the edges.

    Shapes:
        - **input:** edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** ascending positions of kept edges
          :math:`(\lfloor (1 - \rho) |\mathcal{E}| \rfloor)`
    """
    num_edges = edge_index.size(1)
    order = torch.randperm(num_edges, generator=generator, device=edge_index.device)
    return order[: num_kept_edges(num_edges, rho)].sort().values


class PrunedGraph:
    r"""The graph of the edges that survived pruning, for as long as it is
    asked for with the edges that were pruned: another graph, or the same one
    after a change in place, has none. Copies and pickles are empty.

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
    ) -> None:
        r"""Prunes a graph.

        Args:
            keep: Positions of kept edges.
            edge_index: All user-item edges.
            num_users: Number of users.
            num_items: Number of items.
            dtype: Type of edge weights.

        Shapes:
            - **input:** positions :math:`(|\mathcal{E}^{\prime}|)`, edge indices
              :math:`(2, |\mathcal{E}|)`

        Raises:
            ValueError: If edges were made under :obj:`torch.inference_mode`,
                where a change of them would go unnoticed.
        """
        if edge_index.is_inference():
            raise ValueError(
                "Edges that were made under 'torch.inference_mode' cannot be pruned: clone them "
                'outside of it'
            )
        size = num_users, num_items
        self._memo.clear()
        self._memo(lambda: build_graph(edge_index[:, keep], *size, dtype), edge_index, *size, dtype)

    def get(
        self, edge_index: Tensor, num_users: int, num_items: int, dtype: torch.dtype
    ) -> BipartiteGraph | None:
        r"""The pruned form of a graph, :obj:`None` if it was not pruned."""
        return self._memo.get(edge_index, num_users, num_items, dtype)
