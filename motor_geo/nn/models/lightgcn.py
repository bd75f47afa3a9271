from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation
from motor_geo.nn.graph import BipartiteGraph, NormalizedGraph
from motor_geo.nn.loss import frobenius_reg
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import MANY_INTERACTIONS, RATES, Batch, Embeddings


class LightGCN(Recommender):
    r"""LightGCN from the `"LightGCN: Simplifying and Powering Graph
    Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_ paper,

    .. math::
        \mathbf{X} = \frac{1}{L+1} \sum_{l=0}^{L} \left( \mathbf{D}^{-1/2}
        \mathbf{A} \mathbf{D}^{-1/2} \right)^l \mathbf{X}^{(0)} .

    ID-free: The item rows of :math:`\mathbf{X}^{(0)}` are computed from
    tokens.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        reg_weight: Weight of the unsquared Frobenius norms of the batch rows of
            :math:`\mathbf{X}^{(0)}`.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`
    """

    takes_user_encoder = True
    recommended_loss = 'whole'
    needs_all_users = None
    columns = True

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        reg_weight: float = 1e-4,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        self.reg_weight = reg_weight
        self.propagation = LightPropagation(num_layers)

    def graph(self, data: HeteroData) -> BipartiteGraph | NormalizedGraph:  # type: ignore[override]
        r"""The symmetrically normalized training graph, cached as long as its edges
        stay the same. With at least a million edges, it stores no edge weights, and
        results differ by rounding.
        """
        edge_index, num_users, num_items, _ = self.graph_args(data)
        if edge_index.size(1) < MANY_INTERACTIONS or self.user_shard(data) is not None:
            return super().graph(data)
        args = edge_index, num_users, num_items
        return self._graphs(lambda: NormalizedGraph.from_edges(*args), *args)

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagation(*self.encode(data), self.graph(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        x = self.encode(data)
        rows, own, tables = self.propagation.batch(*x, self.graph(data), batch, self.needs_tables)
        ranking = self.ranking(data, batch, rows, tables, 'eps')
        reg = frobenius_reg(*own, shard=self.shard(data))
        return {**ranking, 'reg': self.reg_weight * reg}
