from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.feature_blocks import concat_linear
from motor_geo.nn.functional.rows import table_rows
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings, modalities


class VBPR(Recommender):
    r"""VBPR from the `"VBPR: Visual Bayesian Personalized Ranking from
    Implicit Feedback" <https://arxiv.org/abs/1510.01784>`_ paper, over all
    modalities,

    .. math::
        s(u, i) = \mathbf{p}_u^{\top} \left( \mathbf{q}_i \Vert
        \mathbf{W} \mathbf{x}_i + \mathbf{b} \right)

    where :math:`\mathbf{x}_i` concatenates raw features without normalization,
    in reverse sorted order of modalities (text before images).

    ID-free: :math:`\mathbf{q}_i` is computed from tokens. Training computes it
    for the items of a batch only.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of each half of a vector.
        reg_weight: Weight of the unsquared Frobenius norms of the user and item
            vectors in the batch, with both halves.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, 2d)`, item vectors
          :math:`(N, 2d)`

    Raises:
        ValueError: If the graph has no item features.
    """

    min_modalities = 1
    needs_all_users = None
    reads_rows = True

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        reg_weight: float = 1e-4,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        self.reg_weight = reg_weight
        names = modalities(data, 'VBPR', at_least=1, node_type=self.item_type)[::-1]
        self.features = ItemFeatures(data, None, 'VBPR', names=names, node_type=self.item_type)
        self.lin = nn.Linear(sum(self.features.widths.values()), channels)
        self._reset_lin()

    @classmethod
    def user_channels(cls, channels: int) -> int:
        return 2 * channels

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_lin()

    def _reset_lin(self) -> None:
        nn.init.xavier_normal_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)

    def item_vectors(self, data: HeteroData, index: Tensor | None = None) -> Tensor:
        r"""Both halves of item vectors, concatenated.

        Args:
            data: The user-item graph with features.
            index: Output items; :obj:`None` means all items.

        Shapes:
            - **input:** item indices :math:`(B)` *(optional)*
            - **output:** item vectors :math:`(N, 2d)` or :math:`(B, 2d)`
        """
        x = self.features.raw(data, index)
        content = concat_linear(x, self.lin.weight, self.lin.bias)
        return torch.cat([self.encode_items(data, index), content], dim=-1)

    def forward(self, data: HeteroData) -> Embeddings:
        return Embeddings(self.user_embedding, self.item_vectors(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        user = table_rows(self.user_embedding, batch.user)
        # Projects the features of a repeated item only once.
        items = distinct(torch.cat([batch.pos, batch.neg]))
        item = self.item_vectors(data, items.node).index_select(0, items.inverse)
        return self.ranking_and_norms(data, batch, user, item, self.reg_weight, form='eps')
