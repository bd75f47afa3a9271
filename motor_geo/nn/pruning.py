r"""Pruning of user-item graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from motor_geo.nn.graph import BipartiteGraph, build_graph, narrow, sym_norm
from motor_geo.nn.memo import Memo
from motor_geo.parallel.user_shard import UserShard


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
        noise = weight.new_empty(shard.num_edges).exponential_(generator=generator)[shard.edges]
        return shard.kept(weight / noise, num_kept_edges(shard.num_edges, rho))
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
    num_edges = edge_index.size(1) if shard is None else shard.num_edges
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

        def build() -> BipartiteGraph:
            return build_graph(narrow(edge_index[:, keep]), *size, dtype, shard)

        self._memo(build, edge_index, *size, dtype)

    def get(
        self, edge_index: Tensor, num_users: int, num_items: int, dtype: torch.dtype
    ) -> BipartiteGraph | None:
        r"""The pruned graph of these edges, or :obj:`None` if they were not pruned."""
        return self._memo.get(edge_index, num_users, num_items, dtype)
