from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation, Propagate
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.loss import bpr_loss, frobenius_reg, scores
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.item_graph import ItemGraph, modality_weights
from motor_geo.nn.models.pruned import PrunedRecommender
from motor_geo.nn.models.similarity import feature_similarity_loss
from motor_geo.typing import RATES, Batch, Embeddings, Rows
from motor_geo.utils.lazy import Lazy


class FREEDOM(PrunedRecommender):
    r"""FREEDOM from the `"A Tale of Two Graphs: Freezing and Denoising Graph
    Structures for Multimodal Recommendation"
    <https://arxiv.org/abs/2211.06924>`_ paper. It adds a frozen item-item graph
    to LightGCN, whose training graph is pruned again in every epoch,

    .. math::
        \mathbf{I} = \mathbf{G} + \mathbf{S}^{L_{ii}} \mathbf{Q}, \qquad
        \mathbf{S} = \sum_m \alpha_m \mathbf{S}^m .

    Every modality adds a ranking loss in which projected features
    :math:`\mathbf{z}^m_i = \mathbf{W}_m \mathbf{x}^m_i + \mathbf{b}_m` replace
    :math:`\mathbf{I}`.

    ID-free: :math:`\mathbf{Q}` is computed from tokens, as input of both graphs.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (binary weighting).
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graph.
        modality_weight: Weight :math:`\alpha_m` of every modality. By default,
            images have weight 0.1 and all other modalities share the rest
            equally. Without images, or with images only, weights are equal.
        rho: Fraction of training edges to remove in every epoch, preferably
            edges between nodes of high degree. Evaluation uses all edges.
        reg_weight: Weight of the ranking losses of projected features.
        norm_weight: Weight of the unsquared Frobenius norms of the rows of
            user embeddings and :math:`\mathbf{Q}` in the batch, as in
            :class:`LightGCN`. The paper has no such term, but tokens need it.
        similarity_weight: Weight of the similarity term of
            :class:`~motor_geo.nn.models.AlignRec`, which keeps the inner
            products of :math:`\mathbf{S}^{L_{ii}} \mathbf{Q}` close to the
            cosine similarities of features. The paper has no such term.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='binary'),)
    takes_user_encoder = True
    min_modalities = 1
    needs_all_users = None
    columns = True

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        modality_weight: Mapping[str, float] | None = None,
        rho: float = 0.8,
        reg_weight: float = 1e-3,
        norm_weight: float = 0.0,
        similarity_weight: float = 0.0,
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, rho, edge_type)
        self.num_item_layers = num_item_layers
        self.reg_weight = reg_weight
        self.norm_weight = norm_weight
        self.similarity_weight = similarity_weight
        self.propagation = LightPropagation(num_layers)
        self.conv = Propagate()
        self.features = ItemFeatures(
            data, channels, 'FREEDOM', train=train_features, node_type=self.item_type
        )
        weights = modality_weights(self.features.names, modality_weight)
        self.item_graphs = ItemGraph(weights, self.item_type)
        self.item_graphs.check(data, 'FREEDOM')

    def smooth(self, data: HeteroData, item: Tensor, index: Tensor | None = None) -> Tensor:
        r"""Item vectors after all hops on the item graph.

        Args:
            data: The user-item graph with item graphs.
            item: Item vectors.
            index: Output items; :obj:`None` means all items.

        Shapes:
            - **input:** item vectors :math:`(N, d)`, item indices :math:`(B)`
              *(optional)*
            - **output:** item vectors :math:`(N, d)` or :math:`(B, d)`
        """
        edge_index, weight = self.item_graphs(data, item.dtype)
        for hop in range(1, self.num_item_layers + 1):
            if hop == self.num_item_layers and index is not None:
                return self.conv.rows(item, edge_index, weight, index)
            item = self.conv(item, edge_index, weight)
        return item if index is None else item.index_select(0, index)

    def propagate(self, data: HeteroData, graph: BipartiteGraph) -> Embeddings:
        r"""Final vectors on the given user-item graph.

        Args:
            data: The user-item graph with item graphs.
            graph: The normalized graph, pruned in training.

        Shapes:
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        user, item = self.encode(data)
        out = self.propagation(user, item, graph)
        return Embeddings(out.user, out.item + self.smooth(data, item))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(data, self.graph(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        items, x = torch.cat([batch.pos, batch.neg]), self.encode(data)
        table, graph, shard = x.item, self.training_graph(data), self.shard(data)
        tables = None
        if self.needs_tables:
            out = self.propagation(*x, graph)
            user, own = batch.rows(out).user, batch.rows(x)
            tables = Embeddings(out.user, out.item + self.smooth(data, table))
            rows = batch.rows(tables)
        else:  # Splitting positive and negative items first would take two more copies.
            (user, item), (own_user, own_item) = self.propagation.rows(*x, graph, batch.user, items)
            rows = Rows(user, *(item + self.smooth(data, table, items)).chunk(2))
            own = Rows(own_user, *own_item.chunk(2))
        losses = self.ranking(data, batch, rows, tables)
        if self.reg_weight > 0:  # Projects features for the batch only.
            for modality, z in self.features(data, items).items():
                pair = Rows(user, *self.own_columns(data, z).chunk(2))
                bpr = bpr_loss(*scores(pair, shard))
                losses[f'bpr_{modality}'] = self.reg_weight * bpr
        if self.norm_weight > 0:
            losses['reg'] = self.norm_weight * frobenius_reg(*own, shard=shard)
        if self.similarity_weight > 0:
            pos = distinct(batch.pos)
            z = self.smooth(data, table, pos.node)
            z = z if shard is None else shard.all_columns(z)
            value = feature_similarity_loss(data, self.features, z, pos)
            losses['similarity'] = self.similarity_weight * value
        return losses
