from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.layers import refined_sum
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.loss import l2_reg
from motor_geo.nn.models.pruned import PrunedRecommender
from motor_geo.nn.models.recommender import check_choice
from motor_geo.typing import RATES, Batch, Embeddings


class LayerGCN(PrunedRecommender):
    r"""LayerGCN from the `"Layer-refined Graph Convolutional Networks for
    Recommendation" <https://arxiv.org/abs/2207.11088>`_ paper: every layer is
    scaled node by node by its similarity to the ego layer,

    .. math::
        \mathbf{Y}^{(l+1)} = \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{X}^{(l)}, \qquad
        \mathbf{x}_v^{(l+1)} = \cos(\mathbf{y}_v^{(l+1)}, \mathbf{x}_v^{(0)})
        \, \mathbf{y}_v^{(l+1)}, \qquad
        \mathbf{X} = \sum_{l=1}^{L} \mathbf{X}^{(l)} ,

    on a training graph that :obj:`begin_epoch` prunes anew in every epoch.
    The ego layer is left out, so that an item without training edges scores
    zero.

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

    takes_user_encoder = True

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
        super().__init__(data, item_encoder, channels, rho, edge_type)
        if num_layers < 1:
            raise ValueError(f"'num_layers' must be positive (got {num_layers})")
        check_choice('pruning', pruning, 'alternating', 'degree')
        self.num_layers = num_layers
        self.pruning = pruning
        self.reg_weight = reg_weight

    def is_uniform(self, epoch: int) -> bool:
        return self.pruning == 'alternating' and epoch % 2 == 1

    def propagate(self, ego: Embeddings, graph: BipartiteGraph) -> Embeddings:
        r"""Final vectors from those of the ego layer, on the given user-item
        graph.

        Shapes:
            - **input:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        # The formula above, layer by layer: y = A x, x = cos(y, x0) y, and the sum of all x.
        # As a loop of tensor operations (`refined_sum.reference`) it takes twice the time.
        return Embeddings(*refined_sum(*ego, graph, self.num_layers))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(self.encode(data), self.graph(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        ego = self.encode(data)
        out = self.propagate(ego, self.training_graph(data))
        ranking = self.ranking(data, batch, batch.rows(out), out, 'sum')
        reg = l2_reg(*batch.rows(ego))
        return {**ranking, 'reg': self.reg_weight * reg}
