from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv.dot_attention import DotAttention
from motor_geo.nn.functional.edges import edge_dot
from motor_geo.nn.functional.layers import weighted_sum
from motor_geo.nn.functional.rows import mean_square, normalize_rows
from motor_geo.nn.graph import BipartiteGraph, SortedEdges, opposite_edges
from motor_geo.nn.item_encoder import IDEmbedding
from motor_geo.nn.loss import square_reg
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.item_confidence import ItemConfidence
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.recommender import Recommender, check_choice
from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import RATES, Batch, Embeddings, Rows, num_nodes


class GRCN(Recommender):
    r"""GRCN from the `"GRCN: Graph-Refined Convolutional Network for Multimedia
    Recommendation with Implicit Feedback" <https://arxiv.org/abs/2111.02036>`_
    paper. In every modality, attention between user preferences and item
    features gives content vectors and a weight for every edge. The ID branch
    propagates along an edge with the largest of these weights.

    Let :math:`\mathbf{x}^m` be unit vectors (the preferences of a user, or
    :math:`\textrm{LeakyReLU}(\mathbf{W}_m \mathbf{f}^m_i + \mathbf{b}_m)` of
    an item), and :math:`\mathbf{Z}^{(0)}` the normalized rows of user and item
    vectors. Then

    .. math::
        \mathbf{c}^m_t = \mathbf{x}^m_t + \sum_{s \in \mathcal{N}(t)}
        \alpha^m_{s,t} \mathbf{x}^m_s, \qquad
        \alpha^m_{s,t} = \textrm{softmax}_{s \in \mathcal{N}(t)} \left(
        \mathbf{x}_t^{m \top} \mathbf{x}^m_s \right)

    .. math::
        \mathbf{z}^{(l+1)}_t = \sum_{s \in \mathcal{N}(t)} {\left( \max_m
        \alpha^m_{s,t} C_{s,m} \right)}_{+} \mathbf{z}^{(l)}_s, \qquad
        \mathbf{h}_t = \left( \mathbf{z}^{(0)}_t + \mathbf{z}^{(1)}_t +
        \mathbf{z}^{(2)}_t \right) \Vert \mathbf{c}^1_t \Vert \mathbf{c}^2_t
        \Vert \cdots

    with modalities in sorted order. Evaluation recomputes all of it.

    ID-free: The item rows of :math:`\mathbf{Z}^{(0)}` are computed from tokens.
    The confidence :math:`C_{i,m}` of an item is an affine map of its row.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of every part of a vector.
        routing: :obj:`"reference"` does not update user preferences, as in the
            published numbers. :obj:`"paper"` adds the attention over the items
            of a user to their preferences :obj:`num_routings` times.
        num_routings: Number of routing iterations of :obj:`"paper"`.
        item_confidence: :obj:`"token"` computes the confidence from item
            vectors. :obj:`"free"` trains a parameter per item and modality, as
            the reference implementation does, and is not ID-free.
            :obj:`"none"` sets the confidence to one. By default, :obj:`"free"`
            with an ID embedding, and :obj:`"token"` otherwise.
        reg_weight: Weight of the mean squared entries of user vectors, item
            vectors and user preferences in the batch.
        table_reg: If set to :obj:`False`, does not regularize the whole table of
            image preferences, as in the paper.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, (1 + m) d)`, item vectors
          :math:`(N, (1 + m) d)` for :math:`m` modalities

    Raises:
        ValueError: If the graph has no item features, or an argument is
            unknown or out of range.
    """

    min_modalities = 1
    init = 'normal'
    #: Hops of the ID branch.
    num_hops: ClassVar[int] = 2

    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        routing: str = 'reference',
        num_routings: int = 3,
        item_confidence: str | None = None,
        reg_weight: float = 1e-5,
        table_reg: bool = True,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        check_choice('routing', routing, 'reference', 'paper')
        if num_routings < 0:
            raise ValueError(f"'num_routings' must not be negative (got {num_routings})")
        if item_confidence is None:
            has_ids = isinstance(self.item_encoder, (IDEmbedding, nn.Embedding))
            item_confidence = 'free' if has_ids else 'token'
        self.num_routings = num_routings if routing == 'paper' else 0
        self.reg_weight = reg_weight
        self.table_reg = table_reg
        self.features = ItemFeatures(data, channels, 'GRCN', node_type=self.item_type)
        self.modalities = self.features.names
        num_users, num_items = self.user_embedding.size(0), num_nodes(data, self.item_type)
        self.preferences: NameDict[nn.Parameter] = NameDict(
            {m: nn.Parameter(torch.empty(num_users, channels)) for m in self.modalities}
        )
        self.user_confidence = nn.Parameter(torch.empty(num_users, len(self.modalities)))
        # Users and items form one table of ID vectors and one of confidences. The height of a table
        # sets the scale of its rows. Since rows are normalized later, this scale determines how far
        # a step of Adam rotates them.
        num_rows, n = num_users + num_items, len(self.modalities)
        self._std = (2 / (num_rows + channels)) ** 0.5
        std = (2 / (num_rows + n)) ** 0.5
        self.item_confidence = ItemConfidence(item_confidence, num_items, channels, n, std)
        self.attention = DotAttention()
        self._opposite = Memo()
        self._one_table = item_encoder is None
        self._reset_tables()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_tables()

    def _reset_tables(self) -> None:
        nn.init.normal_(self.user_embedding, std=self._std)
        if self._one_table and isinstance(self.item_encoder, IDEmbedding):
            nn.init.normal_(self.item_encoder.weight, std=self._std)
        nn.init.normal_(self.user_confidence, std=self.item_confidence.std)
        self.item_confidence.reset_parameters()
        for m, lin in self.features:
            nn.init.xavier_normal_(self.preferences[m])
            lin.reset_parameters()
            nn.init.xavier_normal_(lin.weight)

    def user_tables(self) -> list[str]:
        preferences = dict(self.preferences.named_parameters(prefix='preferences'))
        return ['user_embedding', 'user_confidence', *preferences]

    def attend(
        self, data: HeteroData, name: str, graph: BipartiteGraph, opposite: Tensor
    ) -> tuple[Embeddings, Tensor, Tensor]:
        r"""Content vectors :math:`\mathbf{c}^m` of a modality, and the attention
        :math:`\alpha^m` of edges to users and of edges to items.

        Args:
            data: The user-item graph with features.
            name: The modality.
            graph: The normalized user-item graph.
            opposite: Result of :func:`~motor_geo.nn.graph.opposite_edges`.
        """
        item = normalize_rows(F.leaky_relu_(self.features.project(data, name)))
        user = normalize_rows(self.preferences[name])
        for _ in range(self.num_routings):
            message, _ = self.attention((item, user), graph.to_user)
            user = normalize_rows(message.add_(user))
        logit = edge_dot(item, user, graph.to_user)  # The same in both directions.
        to_user, user_alpha = self.attention((item, user), graph.to_user, logit)
        logit = logit.index_select(0, opposite)
        to_item, item_alpha = self.attention((user, item), graph.to_item, logit)
        return Embeddings(to_user.add_(user), to_item.add_(item)), user_alpha, item_alpha

    def refine(self, data: HeteroData, item: Tensor) -> tuple[list[Embeddings], BipartiteGraph]:
        r"""Content vectors of every modality, and the graph with the edge weights of
        the ID branch, from normalized item vectors **[N, d]**.
        """
        graph = self.graph(data)
        opposite = self._opposite(lambda: opposite_edges(graph), graph)
        outs = [self.attend(data, name, graph, opposite) for name in self.modalities]
        contents, to_user, to_item = map(list, zip(*outs))
        weights = [
            _strongest(to_user, self.item_confidence(item), graph.to_user),
            _strongest(to_item, self.user_confidence, graph.to_item),
        ]
        return contents, graph._replace(to_user_weight=weights[0], to_item_weight=weights[1])

    def propagate(self, data: HeteroData, item: Tensor) -> list[Embeddings]:
        r"""Final vectors from item vectors **[N, d]**, as a list of parts: the ID
        branch, followed by all modalities.
        """
        item = normalize_rows(item)
        contents, graph = self.refine(data, item)
        user = normalize_rows(self.user_embedding)
        weights = graph.to_user_weight, graph.to_item_weight
        out = weighted_sum(user, item, *weights, graph, self.num_hops)  # z0 + A z0 + A A z0
        return [Embeddings(*out), *contents]

    def forward(self, data: HeteroData) -> Embeddings:
        parts = self.propagate(data, self.encode_items(data))
        return Embeddings(*(torch.cat(views, dim=-1) for views in zip(*parts)))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        item = self.encode_items(data)
        parts = [batch.rows(part) for part in self.propagate(data, item)]
        rows = Rows(*(torch.cat(views, dim=-1) for views in zip(*parts)))
        losses = self.ranking(data, batch, rows)  # As "raw", without overflow.
        if self.reg_weight > 0:
            rows = batch.rows(Embeddings(self.user_embedding, item))
            reg = square_reg(rows.user) + square_reg(rows.pos, rows.neg)
            losses['reg_id'] = self.reg_weight * reg
            for m in self.modalities:
                reg = square_reg(self.preferences[m].index_select(0, batch.user))
                losses[f'reg_{m}'] = self.reg_weight * reg
            if self.table_reg and 'image' in self.modalities:
                table, shard = self.preferences['image'], self.shard(data)
                reg = mean_square(table)
                if shard is not None:
                    reg = shard.total(table.square().sum()) / (shard.num_users * table.size(1))
                losses['reg_image_table'] = self.reg_weight * reg
        return losses


def _strongest(alphas: list[Tensor], confidence: Tensor, edges: SortedEdges) -> Tensor:
    r"""The largest edge weight over modalities,
    :math:`(\max_m \alpha^m_{s,t} C_{s,m})_{+}`.
    """
    confidence = confidence.index_select(0, edges.source)
    return (torch.stack(alphas, dim=-1) * confidence).amax(dim=-1).relu()
