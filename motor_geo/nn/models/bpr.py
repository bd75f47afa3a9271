from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings


class BPR(Recommender):
    r"""Matrix factorization from the `"BPR: Bayesian Personalized Ranking from
    Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_ paper,

    .. math::
        s(u, i) = \mathbf{p}_u^{\top} \mathbf{q}_i .

    ID-free: :math:`\mathbf{q}_i` is computed from tokens. Training computes it
    for the items of a batch only.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        reg_weight: Weight of the unsquared Frobenius norms of the user and item
            vectors in the batch.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`
    """

    init = 'normal'
    takes_user_encoder = True
    recommended_loss = 'whole'
    needs_all_users = None
    reads_rows = True
    columns = True

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        reg_weight: float = 0.1,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        self.reg_weight = reg_weight

    def forward(self, data: HeteroData) -> Embeddings:
        return self.encode(data)

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        user = self.encode_users(data, index=batch.user)
        item = self.encode_items(data, torch.cat([batch.pos, batch.neg]))
        return self.ranking_and_norms(data, batch, user, item, self.reg_weight, form='eps')
