from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.layers import refined_sum
from motor_geo.nn.graph import (
    BipartiteGraph,
    PrunedGraph,
    degree_sensitive_pruning,
    uniform_pruning,
)
from motor_geo.nn.loss import bpr_loss, l2_reg
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings


class LayerGCN(Recommender):
    r"""LayerGCN from the `"Layer-refined Graph Convolutional Networks for
    Recommendation" <https://arxiv.org/abs/2207.11088>`_ paper: every layer is
    scaled node by node by its similarity to the ego layer,

    .. math::
        \mathbf{Y}^{(l+1)} = \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{X}^{(l)}, \qquad
        \mathbf{x}_v^{(l+1)} = \cos(\mathbf{y}_v^{(l+1)}, \mathbf{x}_v^{(0)})
        \, \mathbf{y}_v^{(l+1)}, \qquad
        \mathbf{X} = \sum_{l=1}^{L} \mathbf{X}^{(l)} ,

    on a training graph that :meth:`begin_epoch` prunes anew in every epoch
    (without it, :meth:`loss` uses all edges). The ego layer is left out, so
    that an item without training edges scores zero.

    ID-free: the item rows of :math:`\mathbf{X}^{(0)}` are computed from
    tokens, in the first layer and in all similarities.

    Args:
        data: The user-item graph.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        rho: Share of training edges removed in every epoch. Ranking uses all
            edges.
        pruning: :obj:`"alternating"` removes edges between nodes of high
            degree first in even epochs (counted from zero) and uniformly in
            odd ones, as published implementations do; :obj:`"degree"` is
            degree-sensitive in every epoch, as in the paper.
        reg_weight: Weight of half the squared rows of
            :math:`\mathbf{X}^{(0)}` in the batch. Like the ranking loss it is
            a sum over the batch.
        edge_type: Edge type of training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 4,
        rho: float = 0.1,
        pruning: str = 'alternating',
        reg_weight: float = 1e-3,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        if num_layers < 1:
            raise ValueError(
                f"'num_layers' must be positive, since the ego layer is no part of the output "
                f'(got {num_layers})'
            )
        if not 0 <= rho < 1:
            raise ValueError(f"'rho' must lie in [0, 1) (got {rho})")
        if pruning not in ('alternating', 'degree'):
            raise ValueError(f"'pruning' must be 'alternating' or 'degree' (got '{pruning}')")
        self.num_layers = num_layers
        self.rho = rho
        self.pruning = pruning
        self.reg_weight = reg_weight
        self.pruned = PrunedGraph()

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        if self.rho == 0:
            return
        edge_index, num_users, num_items, _ = self.graph_args(data)
        if self.pruning == 'alternating' and epoch % 2 == 1:
            keep = uniform_pruning(edge_index, self.rho, generator)
        else:
            keep = degree_sensitive_pruning(edge_index, num_users, num_items, self.rho, generator)
        self.prune(data, keep)

    def prune(self, data: HeteroData, keep: Tensor) -> None:
        r"""Makes the training edges :obj:`keep` the graph of :meth:`loss`.

        Shapes:
            - **input:** positions of kept edges :math:`(|\mathcal{E}^{\prime}|)`
        """
        self.pruned.set(keep, *self.graph_args(data))

    def training_graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The graph of :meth:`loss`: what pruning left, or the whole graph if
        :meth:`begin_epoch` was not called with these edges.
        """
        return self.pruned.get(*self.graph_args(data)) or self.graph(data)

    def propagate(self, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        r"""Final vectors from the item vectors of the ego layer, on the given
        user-item graph.

        Shapes:
            - **input:** item vectors :math:`(N, d)`
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        return Embeddings(*refined_sum(self.user_embedding, item, graph, self.num_layers))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(self.encode_items(data), self.graph(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        item = self.encode_items(data)
        out = self.propagate(item, self.training_graph(data))
        pos, neg = batch.scores(out)
        reg = l2_reg(*batch.rows(Embeddings(self.user_embedding, item)))
        return {'bpr': bpr_loss(pos, neg, 'sum'), 'reg': self.reg_weight * reg}
