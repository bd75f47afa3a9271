from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.models.recommender import Recommender
from motor_geo.nn.pruning import PrunedGraph, degree_sensitive_pruning, uniform_pruning
from motor_geo.typing import RATES


class PrunedRecommender(Recommender):
    r"""Base class of backbones that prune the training graph again in every
    epoch, such as :class:`~motor_geo.nn.models.LayerGCN` and
    :class:`~motor_geo.nn.models.FREEDOM`. By default, they use
    :func:`~motor_geo.nn.pruning.degree_sensitive_pruning`. Evaluation uses all
    edges.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        rho: Fraction of training edges to remove in every epoch.
        edge_type: Edge type of the training interactions, from users to items.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None,
        channels: int,
        rho: float,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        if not 0 <= rho < 1:
            raise ValueError(f"'rho' must lie in [0, 1) (got {rho})")
        self.rho = rho
        self.pruned = PrunedGraph()

    def is_uniform(self, epoch: int) -> bool:
        r"""Whether pruning is uniform instead of degree-sensitive in an epoch."""
        return False

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        if self.rho == 0:
            return
        edge_index, num_users, num_items, _ = self.graph_args(data)
        shard = self.user_shard(data)
        if self.is_uniform(epoch):
            keep = uniform_pruning(edge_index, self.rho, generator, shard)
        else:
            size = num_users, num_items
            keep = degree_sensitive_pruning(edge_index, *size, self.rho, generator, shard)
        self.prune(data, keep)

    def prune(self, data: HeteroData, keep: Tensor) -> None:
        r"""Restricts the graph of :obj:`loss` to the training edges in :obj:`keep`.

        Args:
            data: The user-item graph.
            keep: Positions of the edges to keep.

        Shapes:
            - **input:** positions of kept edges :math:`(|\mathcal{E}^{\prime}|)`
        """
        self.pruned.set(keep, *self.graph_args(data), self.user_shard(data))

    def training_graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The graph of :obj:`loss`: the pruned graph, or the full graph if
        :meth:`begin_epoch` was not called with these edges.
        """
        return self.pruned.get(*self.graph_args(data)) or self.graph(data)
