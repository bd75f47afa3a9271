from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation, Propagate
from motor_geo.nn.functional.distinct import Distinct, distinct
from motor_geo.nn.loss import info_nce, l2_reg
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings, Rows
from motor_geo.utils.numbers import positive


class BatchViews(NamedTuple):
    r"""The views of a batch. Content and side vectors hold distinct users and
    distinct positive items.
    """

    users: Distinct
    items: Distinct
    content: Embeddings
    side: Embeddings
    rows: Rows  # Final vectors of the triples.


class SideViews(Recommender):
    r"""Base class of :class:`~motor_geo.nn.models.SMORE` and
    :class:`~motor_geo.nn.models.AlignRec`, which add vectors
    :math:`\mathbf{Z}` computed from features to the output :math:`\mathbf{C}` of
    LightGCN,

    .. math::
        \mathbf{X} = \mathbf{C} + \mathbf{Z}, \qquad
        \mathbf{Z}_U = \hat{\mathbf{R}} \mathbf{Z}_I ,

    and contrast both. A subclass implements :meth:`modal_items` and
    :meth:`side`.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`batch_size`.
        batch_size: Divisor of the regularizer.
        cl_weight: Weight of the contrastive loss.
        temperature: Temperature of the contrastive loss.
        edge_type: Edge type of the training interactions, from users to items.

    Raises:
        ValueError: If the temperature is not positive.
    """

    takes_user_encoder = True
    min_modalities = 1
    lr_decay = (0.96, 50.0)

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None,
        channels: int,
        num_layers: int,
        reg_weight: float,
        batch_size: int,
        cl_weight: float,
        temperature: float,
        edge_type: EdgeType = RATES,
    ):
        positive('temperature', temperature)
        super().__init__(data, item_encoder, channels, edge_type)
        self.reg_weight = reg_weight
        self.batch_size = positive('batch_size', batch_size)
        self.cl_weight = cl_weight
        self.temperature = temperature
        self.propagation = LightPropagation(num_layers)
        self.conv = Propagate()

    def modal_items(self, data: HeteroData, item: Tensor) -> Tensor:
        r"""Views of items computed from their features, **[N, n, d]**, given item
        vectors **[N, d]**.
        """
        raise NotImplementedError

    def side(self, content: Tensor, modal: Tensor) -> Tensor:
        r"""Side vectors to add to content vectors **[*, d]**, computed from views
        **[*, n, d]** row by row.
        """
        raise NotImplementedError

    def views(
        self, data: HeteroData, index: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Embeddings, Embeddings]:
        r"""Content vectors **[M, d]** and **[N, d]** and modal views **[M, n, d]** and
        **[N, n, d]** of all nodes, or of the given users and items.
        """
        item, graph = self.encode_items(data), self.graph(data)
        modal_item = self.modal_items(data, item)
        args = modal_item.flatten(1), graph.to_user, graph.to_user_weight
        tables = self.encode_users(data, item), item, graph
        if index is None:
            content, modal_user = self.propagation(*tables), self.conv(*args)
        else:
            content = self.propagation.rows(*tables, *index).out
            modal_user = self.conv.rows(*args, index[0])
            modal_item = modal_item.index_select(0, index[1])
        return content, Embeddings(modal_user.view(-1, *modal_item.shape[1:]), modal_item)

    def forward(self, data: HeteroData) -> Embeddings:
        content, modal = self.views(data)
        return Embeddings(*(x + self.side(x, z) for x, z in zip(content, modal)))

    def batch_views(self, data: HeteroData, batch: Batch) -> BatchViews:
        r"""Content, side and final vectors of a batch."""
        users, items = distinct(batch.user), distinct(batch.pos)
        content, modal = self.views(data, (users.node, torch.cat([items.node, batch.neg])))
        side = Embeddings(*map(self.side, content, modal))
        size = [items.node.numel(), batch.neg.numel()]
        pos, neg = (content.item + side.item).split(size)
        rows = Rows(
            (content.user + side.user).index_select(0, users.inverse),
            pos.index_select(0, items.inverse),
            neg,
        )
        pos_content, pos_side = (x.item.split(size)[0] for x in (content, side))
        content, side = content._replace(item=pos_content), side._replace(item=pos_side)
        return BatchViews(users, items, content, side, rows)

    def view_losses(self, data: HeteroData, batch: Batch, views: BatchViews) -> dict[str, Tensor]:
        r"""Ranking loss, regularizer and contrastive losses of a batch."""
        users, items, content, side, rows = views
        losses = self.ranking(data, batch, rows)
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * (l2_reg(*rows) / self.batch_size)
        if self.cl_weight > 0:
            cl_item = info_nce(side.item, content.item, self.temperature, (items, items))
            cl_user = info_nce(side.user, content.user, self.temperature, (users, users))
            losses['cl_item'] = self.cl_weight * cl_item
            losses['cl_user'] = self.cl_weight * cl_user
        return losses

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        return self.view_losses(data, batch, self.batch_views(data, batch))
