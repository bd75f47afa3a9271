from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Hops
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.dropout import perturb_rows
from motor_geo.nn.loss import info_nce, l2_reg
from motor_geo.nn.models.blocks import xavier_blocks_
from motor_geo.nn.models.enlarged_graph import EnlargedGraph, EnlargedGraphs
from motor_geo.nn.models.mgcn import MGCN
from motor_geo.nn.models.similarity import moment_distance
from motor_geo.typing import RATES, Batch, Embeddings, Rows
from motor_geo.utils.numbers import not_negative, positive


class GUMEViews(NamedTuple):
    r"""The views of :class:`GUME` for the given nodes, users first."""

    content: Tensor  # [B, d]
    explicit: Tensor  # [B, n, d]
    extended: Tensor  # [B, d]
    alignment: Tensor  # Distance between the moments of explicit vectors.


class GUME(MGCN):
    r"""GUME from the `"GUME: Graphs and User Modalities Enhancement for
    Long-Tail Multimodal Recommendation" <https://arxiv.org/abs/2407.12338>`_
    paper. Its user-item graph :math:`\mathbf{G}` has additional edges between
    items that are nearest neighbors in all modalities
    (:func:`~motor_geo.nn.models.enlarged_graph.enlarged_graph`). Let
    :math:`\mathbf{Z}^m_I` be the gated and smoothed item vectors of
    :class:`MGCN`. Explicit vectors are :math:`\mathbf{E}^m = \hat{\mathbf{R}}
    \mathbf{Z}^m_I \Vert \mathbf{Z}^m_I`. Extended vectors use a user table
    :math:`\mathbf{P}^m`,

    .. math::
        \mathbf{X} = \frac{1}{n (L + 1)} \sum_m \sum_{l=0}^{L} \mathbf{G}^l
        (\mathbf{P}^m \Vert \mathbf{Z}^m_I) .

    With :math:`\mathbf{C}` the output of LightGCN on :math:`\mathbf{G}`,
    attention :math:`a_m` per node and behavior gates :math:`\mathbf{H}_m`, the
    final vectors are

    .. math::
        \mathbf{C} + \mathbf{F}, \qquad \mathbf{F} = \frac{1}{n + 1} \left(
        \mathbf{E} + \sum_m \sigma(\mathbf{H}_m(\mathbf{C})) \odot
        (\mathbf{E}^m - \mathbf{E}) \right), \qquad
        \mathbf{E} = \sum_m a_m \mathbf{E}^m .

    The loss contrasts :math:`\mathbf{F}` with :math:`\mathbf{C}`, and the users
    of :math:`\mathbf{X}` with those of :math:`\mathbf{F}`. It also contrasts two
    noisy copies of the users of each, and aligns the mean and the variance of
    modalities.

    ID-free: The item vectors :math:`\mathbf{Q}` of :class:`MGCN` are computed
    from tokens, both as input of LightGCN and of the gates.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting).
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L` on the enlarged graph.
        num_item_layers: Number of hops on the item graphs.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`batch_size`.
        extended_reg_weight: Weight of the same term for the extended vectors of
            positive items.
        batch_size: Divisor of the regularizers. It stays the same for a smaller
            last batch.
        behavior_weight: Weight of the contrastive loss between
            :math:`\mathbf{F}` and :math:`\mathbf{C}`.
        behavior_temperature: Temperature of this contrastive loss.
        user_weight: Weight of the contrastive losses of users.
        user_temperature: Temperature of these contrastive losses.
        noise: Length of the noise in the copies.
        align_weight: Weight of the absolute differences between modalities in
            the mean and in the variance of all entries of :math:`\mathbf{E}^m`.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free, since
            they enter the score.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    takes_user_encoder = False  # It has a second table of users.
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 3,
        num_item_layers: int = 2,
        reg_weight: float = 1e-5,
        extended_reg_weight: float = 0.1,
        batch_size: int = 2048,
        behavior_weight: float = 0.01,
        behavior_temperature: float = 0.4,
        user_weight: float = 0.01,
        user_temperature: float = 0.1,
        noise: float = 0.1,
        align_weight: float = 0.1,
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        for name, value in (('behavior', behavior_temperature), ('user', user_temperature)):
            positive(f'{name}_temperature', value)
        super().__init__(
            data,
            item_encoder,
            channels,
            num_item_layers=num_item_layers,
            reg_weight=reg_weight,
            batch_size=batch_size,
            train_features=train_features,
            edge_type=edge_type,
        )
        self.extended_reg_weight = extended_reg_weight
        self.behavior = not_negative('behavior_weight', behavior_weight), behavior_temperature
        self.user = not_negative('user_weight', user_weight), user_temperature
        self.noise = not_negative('noise', noise)
        self.align_weight = align_weight
        self.light = Hops(num_layers, readout='mean')
        self.enlarged = EnlargedGraphs(self.features.names, self.item_type)
        size = self.user_embedding.size(0), len(self.features) * channels
        self.modal_user_embedding = nn.Parameter(torch.empty(size))
        xavier_blocks_(self.modal_user_embedding, channels, self.init)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        xavier_blocks_(self.modal_user_embedding, self.channels, self.init)

    def user_tables(self) -> list[str]:
        return [*super().user_tables(), 'modal_user_embedding']

    def nodes(self, data: HeteroData, rows: Embeddings | None = None) -> GUMEViews:
        r"""The views of all users and items, or of those in :obj:`rows`."""
        item, shard = self.encode_items(data), self.shard(data)
        graph = self.enlarged(data, *self.graph_args(data), shard)
        modal_item = torch.stack([self.modal_item(data, m, item) for m in self.gates], dim=1)
        z = modal_item.flatten(1)
        explicit = torch.cat([self.conv(z, graph.to_user, graph.to_user_weight), z])
        explicit = explicit.view(-1, *modal_item.shape[1:])
        alignment = moment_distance(explicit, shard)

        # Propagates all tables at once, side by side.
        user = torch.cat([self.user_embedding, self.modal_user_embedding], dim=1)
        num_users, item = user.size(0), torch.cat([item, z], dim=1)
        if isinstance(graph, EnlargedGraph):  # Items follow users in the node numbering.
            index = None if rows is None else torch.cat([rows.user, rows.item + num_users])
            out = self.light(torch.cat([user, item]), graph.edge_index, graph.weight, index)
            explicit = explicit if index is None else explicit.index_select(0, index)
        else:
            own = Embeddings(user, item)
            out = torch.cat(graph.mean(self.conv, own, self.light.num_layers, rows))
            if rows is not None:
                views = zip(explicit.tensor_split([num_users]), rows)
                explicit = torch.cat([view.index_select(0, row) for view, row in views])
        content, extended = out.view(-1, len(self.gates) + 1, self.channels).tensor_split([1], 1)
        return GUMEViews(content.squeeze(1), explicit, extended.mean(dim=1), alignment)

    def forward(self, data: HeteroData) -> Embeddings:
        content, explicit, _, _ = self.nodes(data)
        out = content + self.side(content, explicit)
        num_users = self.user_embedding.size(0)
        return Embeddings(out[:num_users], out[num_users:])

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        users, items = distinct(batch.user), distinct(batch.pos)
        parts = users.node, items.node, batch.neg
        size, index = [part.numel() for part in parts], Embeddings(parts[0], torch.cat(parts[1:]))
        content, explicit, extended, alignment = self.nodes(data, index)
        side = self.side(content, explicit)
        user, pos, neg = (content + side).split(size)
        rows = Rows(user.index_select(0, users.inverse), pos.index_select(0, items.inverse), neg)
        losses = self.ranking(data, batch, rows)
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * (l2_reg(*rows) / self.batch_size)
        x_user, x_pos, _ = extended.split(size)
        if self.extended_reg_weight > 0:
            reg = l2_reg(x_pos.index_select(0, items.inverse)) / self.batch_size
            losses['reg_extended'] = self.extended_reg_weight * reg
        if self.align_weight > 0 and len(self.gates) > 1:
            losses['align'] = self.align_weight * alignment

        (f_user, f_pos, _), (c_user, c_pos, _) = side.split(size), content.split(size)
        weight, temperature = self.behavior
        if weight > 0:
            losses['behavior_user'] = weight * info_nce(f_user, c_user, temperature, (users, users))
            losses['behavior_item'] = weight * info_nce(f_pos, c_pos, temperature, (items, items))
        weight, temperature = self.user
        if weight > 0:
            losses['user'] = weight * info_nce(x_user, f_user, temperature, (users, users))
            for name, x in (('integration', f_user), ('extended', x_user)):
                views = [self.perturb(x, f'{name}{k}', users.node) for k in (1, 2)]
                contrast = info_nce(views[0], views[1], temperature, (users, users))
                losses[f'noise_{name}'] = weight * contrast
        return losses

    def perturb(self, x: Tensor, view: str, node: Tensor) -> Tensor:
        r"""A noisy copy of user vectors **[B, d]**, for the view :obj:`"integration1"`,
        :obj:`"integration2"`, :obj:`"extended1"` or :obj:`"extended2"`.
        """
        return perturb_rows(x, self.noise)
