from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.graph import (
    BipartiteGraph,
    PrunedGraph,
    degree_sensitive_pruning,
    uniform_pruning,
)
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES


class PrunedRecommender(Recommender):
    r"""The common part of :class:`~motor_geo.nn.models.LayerGCN` and
    :class:`~motor_geo.nn.models.FREEDOM`: the training
    graph is pruned anew in every epoch, by
    :func:`~motor_geo.nn.graph.degree_sensitive_pruning`. Ranking uses all
    edges.

    Args:
        data: The user-item graph.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        rho: Share of training edges removed in every epoch.
        edge_type: Edge type of training interactions, from users to items.
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
        r"""Whether all edges are equally likely to go in an epoch."""
        return False

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        if self.rho == 0:
            return
        edge_index, num_users, num_items, _ = self.graph_args(data)
        if self.is_uniform(epoch):
            keep = uniform_pruning(edge_index, self.rho, generator)
        else:
            keep = degree_sensitive_pruning(edge_index, num_users, num_items, self.rho, generator)
        self.prune(data, keep)

    def prune(self, data: HeteroData, keep: Tensor) -> None:
        r"""Makes the training edges :obj:`keep` the graph of :obj:`loss`.

        Shapes:
            - **input:** positions of kept edges :math:`(|\mathcal{E}^{\prime}|)`
        """
        self.pruned.set(keep, *self.graph_args(data))

    def training_graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The graph of :obj:`loss`: what pruning left, or the whole graph if
        :meth:`begin_epoch` was not called with these edges.
        """
        return self.pruned.get(*self.graph_args(data)) or self.graph(data)
