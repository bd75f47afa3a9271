from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.layers import refined_sum
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.loss import l2_reg
from motor_geo.nn.models.pruned import PrunedRecommender
from motor_geo.nn.models.recommender import check_choice
from motor_geo.parallel.user_shard import UserShard
from motor_geo.typing import RATES, Batch, Embeddings


class LayerGCN(PrunedRecommender):
    r"""LayerGCN from the `"Layer-refined Graph Convolutional Networks for
    Recommendation" <https://arxiv.org/abs/2207.11088>`_ paper. It scales every
    layer, node by node, by its cosine similarity to the ego layer,

    .. math::
        \mathbf{Y}^{(l+1)} = \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{X}^{(l)}, \qquad
        \mathbf{x}_v^{(l+1)} = \cos(\mathbf{y}_v^{(l+1)}, \mathbf{x}_v^{(0)})
        \, \mathbf{y}_v^{(l+1)}, \qquad
        \mathbf{X} = \sum_{l=1}^{L} \mathbf{X}^{(l)} ,

    on a training graph that :obj:`begin_epoch` prunes again in every epoch. The
    sum does not include the ego layer, so an item without training edges scores
    zero.

    ID-free: The item rows of :math:`\mathbf{X}^{(0)}` are computed from tokens,
    for the first layer and for all similarities.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        rho: Fraction of training edges to remove in every epoch. Evaluation uses
            all edges.
        pruning: :obj:`"alternating"` uses degree-sensitive pruning in even
            epochs (counted from zero) and uniform pruning in odd epochs, as
            published implementations do. :obj:`"degree"` uses degree-sensitive
            pruning in every epoch, as in the paper.
        reg_weight: Weight of half the sum of squared entries of the rows of
            :math:`\mathbf{X}^{(0)}` in the batch. Like the ranking loss, it is a
            sum over the batch.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    takes_user_encoder = True
    needs_all_users = None
    columns = True

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

    def propagate(
        self, ego: Embeddings, graph: BipartiteGraph, shard: UserShard | None = None
    ) -> Embeddings:
        r"""Final vectors from those of the ego layer, on the given user-item
        graph.

        Args:
            ego: User and item vectors of the ego layer.
            graph: The normalized graph, pruned in training.
            shard: The columns of this process, if several share them.

        Shapes:
            - **input:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        # The formula above, layer by layer: y = A x, x = cos(y, x0) y, and the sum of all x.
        # A loop of tensor operations (`refined_sum.reference`) takes twice as long.
        return Embeddings(*refined_sum(*ego, graph, self.num_layers, shard))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(self.encode(data), self.graph(data), self.shard(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        ego = self.encode(data)
        shard = self.shard(data)
        out = self.propagate(ego, self.training_graph(data), shard)
        ranking = self.ranking(data, batch, batch.rows(out), out, 'sum')
        reg = l2_reg(*batch.rows(ego), shard=shard)
        return {**ranking, 'reg': self.reg_weight * reg}
