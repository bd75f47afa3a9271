from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Hops, LightPropagation
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.dropout import drop_entries
from motor_geo.nn.functional.rows import normalize_rows
from motor_geo.nn.loss import info_nce
from motor_geo.nn.models.blocks import BlockRecommender
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.item_graph import ItemGraph, modality_weights
from motor_geo.typing import RATES, Batch, Embeddings, Rows
from motor_geo.utils.lazy import Lazy
from motor_geo.utils.numbers import not_negative, positive


class PGL(BlockRecommender):
    r"""PGL from the `"Mind Individual Information! Principal Graph Learning for
    Multimedia Recommendation" <https://doi.org/10.1609/aaai.v39i12.33429>`_
    paper. It represents items by the concatenation of their projected features,
    and users by one table per modality,

    .. math::
        \mathbf{X} = \Vert_m \, \frac{\mathbf{W}_m \mathbf{x}^m + \mathbf{b}_m}
        {\| \mathbf{W}_m \mathbf{x}^m + \mathbf{b}_m \|}, \qquad
        \mathbf{X}_U = \Vert_m \, \mathbf{P}^m ,

    LightGCN computes :math:`\mathbf{U}` and :math:`\mathbf{G}` from both, and a
    frozen item graph is added,

    .. math::
        \mathbf{I} = \mathbf{G} + \mathbf{S}^{L_{ii}} \mathbf{X}, \qquad
        \mathbf{S} = \sum_m \alpha_m \mathbf{S}^m .

    In training, LightGCN runs on a subgraph that is drawn again in every epoch
    and prefers edges between nodes of low degree (the local extraction of the
    paper). A contrastive loss compares two views of the same vectors with
    different dropout.

    ID-free: The published model has no item embedding. An :obj:`item_encoder`
    adds a block computed from tokens, which is also scaled to unit length.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (binary weighting).
        item_encoder: Item encoder of an additional block; :obj:`None` uses
            features alone, as published.
        channels: Size :math:`d` of a block.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graph.
        modality_weight: Weight :math:`\alpha_m` of every modality; :obj:`None`
            uses the default of :class:`FREEDOM`.
        rho: Fraction of training edges to remove in every epoch. Evaluation uses
            all edges.
        dropout: Dropout probability of the two views. Every row of a batch has
            its own mask.
        reg_weight: Weight of the mean of the contrastive losses of users and of
            items. The default of the reference framework is zero; the published
            numbers use 0.05 to 0.5.
        temperature: Temperature of the contrastive loss.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free, since
            they enter the score.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, bd)`, item vectors
          :math:`(N, bd)` with :math:`b` the number of blocks

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='binary'),)
    lr_decay = (0.96, 50.0)
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        modality_weight: Mapping[str, float] | None = None,
        rho: float = 0.7,
        dropout: float = 0.2,
        reg_weight: float = 0.05,
        temperature: float = 0.2,
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' must lie in [0, 1) (got {dropout})")
        positive('temperature', temperature)
        super().__init__(data, item_encoder, channels, rho, edge_type)
        self.dropout = dropout
        self.reg_weight = reg_weight
        self.temperature = temperature
        self.propagation = LightPropagation(num_layers)
        self.hops = Hops(not_negative('num_item_layers', num_item_layers))
        self.features = ItemFeatures(
            data, channels, 'PGL', train=train_features, node_type=self.item_type
        )
        weights = modality_weights(self.features.names, modality_weight)
        self.item_graphs = ItemGraph(weights, self.item_type)
        self.item_graphs.check(data, 'PGL')

    def item_blocks(self, data: HeteroData) -> Tensor:
        r"""Item vectors :math:`\mathbf{X}` before propagation, **[N, bd]**."""
        blocks = list(self.features(data).values())
        if self.item_encoder is not None:
            blocks.append(self.encode_items(data))
        return normalize_rows(torch.stack(blocks, dim=1)).flatten(1)

    def forward(self, data: HeteroData) -> Embeddings:
        item = self.item_blocks(data)
        out = self.propagation(self.user_embedding, item, self.graph(data))
        smooth = self.hops(item, *self.item_graphs(data, item.dtype))
        return Embeddings(out.user, out.item + smooth)

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        users, items = distinct(batch.user), distinct(batch.pos)
        index = users.node, torch.cat([items.node, batch.neg])
        tables = self.user_embedding, self.item_blocks(data)
        (user, item), _ = self.propagation.rows(*tables, self.training_graph(data), *index)
        graph = self.item_graphs(data, item.dtype)
        item = item + self.hops(tables[1], *graph, index[1])
        pos, neg = item.split([items.node.numel(), batch.neg.numel()])
        user, pos = user.index_select(0, users.inverse), pos.index_select(0, items.inverse)
        rows = Rows(user, pos, neg)

        losses = self.ranking(data, batch, rows)
        if self.reg_weight > 0:
            for name, x in (('user', user), ('item', pos)):
                views = self.drop(x, f'{name}1'), self.drop(x, f'{name}2')
                contrast = info_nce(*views, self.temperature)
                losses[f'cl_{name}'] = self.reg_weight / 2 * contrast
        return losses

    def drop(self, x: Tensor, view: str) -> Tensor:
        r"""Applies dropout to a view: :obj:`"user1"`, :obj:`"user2"`, :obj:`"item1"` or
        :obj:`"item2"`, **[B, bd]**.
        """
        return drop_entries(x, self.dropout)
