from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Hops
from motor_geo.nn.functional.layers import refined_sum
from motor_geo.nn.functional.rows import normalize_rows
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.item_encoder import IDEmbedding
from motor_geo.nn.loss import square_reg
from motor_geo.nn.models.item_graph import ItemGraph, modality_weights
from motor_geo.nn.models.preferences import PreferenceRecommender
from motor_geo.typing import RATES, Batch, Embeddings, Rows, num_nodes
from motor_geo.utils.lazy import Lazy
from motor_geo.utils.numbers import not_negative


class COHESION(PreferenceRecommender):
    r"""COHESION from the `"COHESION: Composite Graph Convolutional Network with
    Dual-Stage Fusion for Multimodal Recommendation"
    <https://arxiv.org/abs/2504.04452>`_ paper. It fuses item vectors
    :math:`\mathbf{Q}` element-wise with the encoded features of every modality
    and then scales rows to unit length,

    .. math::
        \mathbf{Y}^m = \sqrt{\frac{\mathbf{Q}^2 + \textrm{ENC}_m(\mathbf{x}^m)^2}
        {2} + \epsilon}, \qquad \mathbf{X}^m = \textrm{LayerGCN} \left(
        \mathbf{P}^m \Vert \mathbf{Y}^m \right)

    where the sum over layers includes the ego layer. An additional block
    :math:`\mathbf{X}^{\textrm{id}}` without gradient fuses :math:`\mathbf{Q}` in
    the same way with a network applied to :math:`\mathbf{Q}` itself. With
    :math:`\mathbf{Z} = \mathbf{X}^{\textrm{id}} \Vert_m \mathbf{X}^m`, graphs of
    similar users and similar items give

    .. math::
        \mathbf{U} = \mathbf{Z}_U + \mathbf{S}_U \mathbf{Z}_U, \qquad
        \mathbf{I} = \mathbf{Z}_I + \mathbf{S}^{L_{ii}} \mathbf{Z}_I .

    The ranking loss uses the logarithm to base two. It weights the score
    difference :math:`\delta_b` of a block by :math:`1 -
    \textrm{softmax}(\boldsymbol{\delta})_b`, without a gradient of the weight.

    ID-free: :math:`\mathbf{Q}` is computed from tokens, in every block. As in
    the reference implementation, the network and the user table of the
    additional block keep their initial values. The reference implementation
    also regularizes weights per user that it never uses; they are omitted here.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`, item
            graphs of :class:`~motor_geo.data.ItemKNN` (binary weighting) and
            the user graph of :class:`~motor_geo.data.UserKNN`.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of a block.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graph.
        modality_weight: Weight of the item graph of every modality; :obj:`None`
            uses the default of :class:`FREEDOM`.
        rho: Fraction of training edges to remove in every epoch, preferably
            edges between nodes of high degree. Evaluation uses all edges.
        reg_weight: Weight of the mean squared entries of preferences
            :math:`\mathbf{P}^m` in the batch.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, bd)`, item vectors
          :math:`(N, bd)`, where :math:`b` is the number of modalities plus one

    Raises:
        ValueError: If the graph has no item features, no item graph or no user
            graph, or an argument is out of range.
    """

    transforms = (
        Lazy('motor_geo.data.ItemKNN', weighting='binary'),
        Lazy('motor_geo.data.UserKNN'),
    )
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        modality_weight: Mapping[str, float] | None = None,
        rho: float = 0.0,
        reg_weight: float = 1e-3,
        edge_type: EdgeType = RATES,
    ):
        if num_layers < 1:
            raise ValueError(f"'num_layers' must be positive (got {num_layers})")
        if item_encoder is None:
            item_encoder = IDEmbedding(num_nodes(data, edge_type[2]), channels, self.init)
        super().__init__(data, item_encoder, channels, reg_weight, rho, edge_type)
        self.num_layers = num_layers
        self.hops = Hops(not_negative('num_item_layers', num_item_layers))
        weights = modality_weights(self.features.names, modality_weight)
        self.item_graphs = ItemGraph(weights, self.item_type)
        self.item_graphs.check(data, 'COHESION')
        self.id_hidden = nn.Linear(channels, 4 * channels).requires_grad_(False)
        self.id_out = nn.Linear(4 * channels, channels).requires_grad_(False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.id_hidden.reset_parameters()
        self.id_out.reset_parameters()

    def branch(self, user: Tensor, x: Tensor, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        r"""Vectors :math:`\mathbf{X}` of a block, from preferences **[M, d]**, encoded
        features **[N, d]** and item vectors **[N, d]**.
        """
        fused = ((item.square() + x.square()) / 2 + 1e-8).sqrt()
        ego = normalize_rows(user), normalize_rows(fused)
        out = refined_sum(*ego, graph, self.num_layers)
        return Embeddings(*(a + b for a, b in zip(ego, out)))

    def propagate(self, data: HeteroData, training: bool) -> Embeddings:
        item = self.encode_items(data)
        graph = self.training_graph(data) if training else self.graph(data)
        own, *users = self.user_embedding.split(self.channels, dim=1)
        with torch.no_grad():
            x = self.id_out(F.leaky_relu(self.id_hidden(item)))
            blocks = [self.branch(own, x, item, graph)]
        for user, x in zip(users, self.encode_features(data)):
            blocks.append(self.branch(user, x, item, graph))
        return Embeddings(*(torch.cat(parts, dim=1) for parts in zip(*blocks)))

    def smooth(self, data: HeteroData, item: Tensor, index: Tensor | None = None) -> Tensor:
        near = self.hops(item, *self.item_graphs(data, item.dtype), index)
        return near + (item if index is None else item.index_select(0, index))

    def balance(self, rows: Rows) -> Tensor:
        r"""Weights of blocks in training, **[B, b]**. The better a block separates the
        positive from the negative item, the lower its weight.
        """
        user, pos, neg = (self.blocks(x.detach()) for x in rows)
        return 1 - (user * (pos - neg)).sum(dim=-1).softmax(dim=-1)

    def preference_reg(self, batch: Batch) -> Tensor:
        user = self.user_embedding[:, self.channels :].index_select(0, batch.user)
        return (self.num_blocks - 1) * square_reg(user)

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        rows = self.rows(data, batch)
        weight = self.balance(rows).unsqueeze(-1)
        rows = rows._replace(user=(weight * self.blocks(rows.user)).flatten(1))
        losses = self.ranking(data, batch, rows, form='log2')
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * self.preference_reg(batch)
        return losses
