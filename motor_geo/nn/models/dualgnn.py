from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation
from motor_geo.nn.functional.rows import normalize_rows
from motor_geo.nn.loss import square_reg
from motor_geo.nn.models.preferences import PreferenceRecommender
from motor_geo.nn.models.recommender import check_choice
from motor_geo.typing import RATES, Batch, Embeddings
from motor_geo.utils.lazy import Lazy


class DualGNN(PreferenceRecommender):
    r"""DualGNN from the `"DualGNN: Dual Graph Neural Network for Multimedia
    Recommendation" <https://doi.org/10.1109/TMM.2021.3138298>`_ paper. Every
    modality has user preferences :math:`\mathbf{P}^m` and a feature encoder
    :math:`\textrm{ENC}_m`. Rows of both are scaled to unit length and
    propagated,

    .. math::
        \mathbf{X}^m = \sum_{l=0}^{L} \left( \mathbf{D}^{-1/2} \mathbf{A}
        \mathbf{D}^{-1/2} \right)^l (\mathbf{P}^m \Vert
        \textrm{ENC}_m(\mathbf{x}^m)) .

    With weights :math:`\omega_{u,m}` per user and modality, and a graph
    :math:`\mathbf{S}_U` of users with many items in common, the final vectors
    are

    .. math::
        \mathbf{I} = \sum_m \mathbf{X}^m_I, \qquad
        \mathbf{U}_0 = \sum_m \boldsymbol{\omega}_m \mathbf{X}^m_U, \qquad
        \mathbf{U} = \mathbf{U}_0 + \mathbf{S}_U \mathbf{U}_0 .

    The ranking loss uses the logarithm to base two.

    ID-free: The published model has no item embedding. An
    :obj:`item_encoder` adds a modality computed from tokens. The reference
    implementation also regularizes weights per item that it never uses; they
    are omitted here.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and the
            user graph of :class:`~motor_geo.data.UserKNN`.
        item_encoder: Item encoder of an additional modality; :obj:`None` uses
            features alone, as published.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L` on the user-item graph.
        reg_weight: Weight of the mean squared entries of preferences in the
            batch and of all :math:`\omega`.
        fusion: Weights of modalities. :obj:`"reference"` uses
            :math:`\omega_{u,1}` for the first modality and
            :math:`\omega_{u,1} + \omega_{u,m}` for the others, since the
            reference implementation adds modalities to the first one in place.
            :obj:`"paper"` uses :math:`\omega_{u,m}`.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features or no user graph, or an
            argument is out of range.
    """

    transforms: ClassVar[tuple[BaseTransform, ...]] = (Lazy('motor_geo.data.UserKNN'),)
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        reg_weight: float = 1e-3,
        fusion: str = 'reference',
        edge_type: EdgeType = RATES,
    ):
        check_choice('fusion', fusion, 'reference', 'paper')
        super().__init__(data, item_encoder, channels, reg_weight, edge_type=edge_type)
        self.fusion = fusion
        self.propagation = LightPropagation(num_layers, readout='sum')
        self.user_weight = nn.Parameter(torch.empty(self.user_embedding.size(0), self.num_blocks))
        self._reset_weight()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_weight()

    @torch.no_grad()
    def _reset_weight(self) -> None:
        nn.init.xavier_normal_(self.user_weight)
        self.user_weight.copy_(self.user_weight.softmax(dim=1))  # Unconstrained in training.

    def user_tables(self) -> list[str]:
        return [*super().user_tables(), 'user_weight']

    def modal_vectors(self, data: HeteroData) -> Embeddings:
        r"""Vectors :math:`\mathbf{X}^m` of all modalities, **[M, b, d]** for users and
        **[N, b, d]** for items.
        """
        items = self.encode_features(data)
        if self.item_encoder is not None:
            items.append(self.encode_items(data))
        item = normalize_rows(torch.stack(items, dim=1)).flatten(1)
        user = normalize_rows(self.blocks(self.user_embedding)).flatten(1)
        out = self.propagation(user, item, self.graph(data))
        return Embeddings(*map(self.blocks, out))

    def propagate(self, data: HeteroData, training: bool) -> Embeddings:
        user, item = self.modal_vectors(data)
        weight: Tensor = self.user_weight
        if self.fusion == 'reference':
            weight = torch.cat([weight[:, :1], weight[:, :1] + weight[:, 1:]], dim=1)
        return Embeddings((weight.unsqueeze(-1) * user).sum(dim=1), item.sum(dim=1))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        rows = self.rows(data, batch)
        losses = self.ranking(data, batch, rows, form='log2')
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * self.preference_reg(batch)
            losses['reg_weight'] = self.reg_weight * square_reg(
                self.user_weight, users=self.shard(data)
            )
        return losses
