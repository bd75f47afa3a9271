from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Propagate
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.loss import square_reg
from motor_geo.nn.models.blocks import BlockRecommender
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.user_graph import UserGraph
from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import RATES, Batch, Embeddings, Rows


class PreferenceRecommender(BlockRecommender):
    r"""Base class of :class:`~motor_geo.nn.models.DualGNN`,
    :class:`~motor_geo.nn.models.DRAGON` and
    :class:`~motor_geo.nn.models.COHESION`. Every modality has a table of user
    preferences and a feature encoder,

    .. math::
        \textrm{ENC}_m(\mathbf{x}) = \mathbf{W}_2^m \, \phi(\mathbf{W}_1^m
        \mathbf{x} + \mathbf{b}_1^m) + \mathbf{b}_2^m ,

    and users aggregate similar users,
    :math:`\mathbf{U} = \mathbf{U}_0 + \mathbf{S}_U \mathbf{U}_0`. A subclass
    implements :meth:`propagate`, and may override :meth:`smooth`.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and the
            user graph of :class:`~motor_geo.data.UserKNN`.
        item_encoder: Item encoder of an additional block; :obj:`None` uses
            features alone, as published.
        channels: Size :math:`d` of a block.
        reg_weight: Weight of the mean squared entries of preferences in the
            batch.
        rho: Fraction of training edges to remove in every epoch.
        edge_type: Edge type of the training interactions, from users to items.

    Raises:
        ValueError: If the graph has no item features or no user graph, or an
            argument is out of range.
    """

    init = 'normal'

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None,
        channels: int,
        reg_weight: float,
        rho: float = 0.0,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, rho, edge_type)
        self.reg_weight = reg_weight
        name, hidden = type(self).__name__, 4 * channels
        self.features = ItemFeatures(data, hidden, name, node_type=self.item_type)
        self.outs = NameDict({m: nn.Linear(hidden, channels) for m in self.features.names})
        self.user_graph = UserGraph(self.user_type)
        self.user_graph.check(data, name)
        self.user_conv = Propagate()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in self.outs.values():
            lin.reset_parameters()

    def encode_features(self, data: HeteroData) -> list[Tensor]:
        r"""The encoded features of every modality, **[N, d]**."""
        return [self.outs[m](F.leaky_relu(x)) for m, x in self.features(data).items()]

    def propagate(self, data: HeteroData, training: bool) -> Embeddings:
        r"""User and item vectors before similar users and items are added, on the
        full graph or, if :obj:`training` is set, on the training graph.
        """
        raise NotImplementedError

    def smooth(self, data: HeteroData, item: Tensor, index: Tensor | None = None) -> Tensor:
        r"""Adds the vectors of similar items, for all items or for those in
        :obj:`index`. By default, it adds nothing.
        """
        return item if index is None else item.index_select(0, index)

    def similar_users(
        self, data: HeteroData, user: Tensor
    ) -> tuple[Tensor, tuple[EdgeIndex, Tensor]]:
        r"""The vectors of the sources of the graph of users, and the graph. If several
        processes share the users, the sources are the users of all of them.

        Shapes:
            - **input:** user vectors :math:`(M, *)`
        """
        shard = self.user_shard(data)
        graph = self.user_graph(data, user.dtype, shard)
        return user if shard is None else shard.all_users(user), graph

    def forward(self, data: HeteroData) -> Embeddings:
        user, item = self.propagate(data, training=False)
        everyone, graph = self.similar_users(data, user)
        user = user + self.user_conv(everyone, *graph)
        return Embeddings(user, self.smooth(data, item))

    def rows(self, data: HeteroData, batch: Batch) -> Rows:
        r"""Final vectors of a batch."""
        user, item = self.propagate(data, training=True)
        users, items = distinct(batch.user), distinct(torch.cat([batch.pos, batch.neg]))
        everyone, graph = self.similar_users(data, user)
        near = self.user_conv.rows(everyone, *graph, users.node)
        user = (user.index_select(0, users.node) + near).index_select(0, users.inverse)
        item = self.smooth(data, item, items.node).index_select(0, items.inverse)
        return Rows(user, *item.split([batch.pos.numel(), batch.neg.numel()]))

    def preference_reg(self, batch: Batch) -> Tensor:
        r"""Mean squared entries of the preferences in the batch, summed over blocks."""
        return self.num_blocks * square_reg(self.user_embedding.index_select(0, batch.user))
