from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.typing import OptTensor

from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.functional.rows import checkpoint_rows, inverse_norm, normalize_rows, project
from motor_geo.nn.graph import BipartiteGraph, SortedEdges, shard_of
from motor_geo.nn.memo import Memo
from motor_geo.parallel.user_index import UserIndex
from motor_geo.typing import Embeddings


class MMGCNConv(nn.Module):
    r"""The layer of the `"MMGCN: Multi-modal Graph Convolution Network for
    Personalized Recommendation of Micro-video"
    <https://doi.org/10.1145/3343031.3351034>`_ paper in its variant with
    concatenation,

    .. math::
        \mathbf{x}^{\prime}_v = \phi \Big( \mathbf{W}_g \Big[ \phi \big(
        \mathbf{W}_c \sum_{w \in \mathcal{N}(v)} e_{w,v} \mathbf{x}_w \big)
        \, \Vert \, \phi(\mathbf{W}_l \mathbf{x}_v + \mathbf{b}_l) +
        \mathbf{id}_v \Big] + \mathbf{b}_g \Big)

    for the users and items of a user-item graph, where :math:`\phi` is the leaky
    ReLU. Edge weights :math:`e_{w,v} = 1 / \deg(v)` give a mean over neighbors.

    Args:
        in_channels: Size of input features.
        out_channels: Size of output features and of :math:`\mathbf{id}`.

    Shapes:
        - **input:** features :math:`(M, F_{in})` and :math:`(N, F_{in})`,
          :math:`\mathbf{id}` vectors :math:`(M, F_{out})` and
          :math:`(N, F_{out})`, a :class:`~motor_geo.nn.graph.BipartiteGraph`,
          aggregated neighbors of users :math:`(M, F_{in})` and of items
          :math:`(N, F_{in})` *(optional; computed if* :obj:`None` *)*, factors
          :math:`(M, 1)` and :math:`(N, 1)` that scale raw features *(optional;
          aggregated neighbors are already scaled)*, output users
          :math:`(B_u)` and items :math:`(B_i)` *(optional)*
        - **output:** user features :math:`(M, F_{out})` or
          :math:`(B_u, F_{out})`, item features :math:`(N, F_{out})` or
          :math:`(B_i, F_{out})`
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.conv = Propagate()
        self.lin_neighbor = nn.Linear(in_channels, in_channels, bias=False)
        self.lin_self = nn.Linear(in_channels, out_channels)
        self.gate = nn.Linear(in_channels + out_channels, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for lin in [self.lin_neighbor, self.lin_self, self.gate]:
            lin.reset_parameters()
        for lin in [self.lin_neighbor, self.lin_self]:
            nn.init.xavier_normal_(lin.weight)

    def forward(
        self,
        x: Embeddings,
        ids: Embeddings,
        graph: BipartiteGraph,
        mean: tuple[OptTensor, OptTensor] = (None, None),
        scale: tuple[OptTensor, OptTensor] = (None, None),
        rows: Embeddings | None = None,
    ) -> Embeddings:
        r"""Vectors of users and items after one layer."""
        user = x.item, graph.to_user, graph.to_user_weight, mean[0]
        item = x.user, graph.to_item, graph.to_item_weight, mean[1]
        outs = []
        for args, *own, index in zip((user, item), x, ids, scale, rows or (None, None)):
            if isinstance(index, UserIndex):  # Each process computes the rows of its own users.
                outs.append(index.spread(self._layer(args, own, index.local)))
            else:
                outs.append(self._layer(args, own, index))
        return Embeddings(*outs)

    def _layer(
        self,
        args: tuple[Tensor, SortedEdges, Tensor, OptTensor],
        own: list[OptTensor],
        index: OptTensor,
    ) -> Tensor:
        r"""Vectors of all users or all items, or of those in :obj:`index`."""
        table = own[0]
        assert table is not None
        if index is None:
            return self._update(self._neighbors(*args), *own)
        if index.numel() > table.size(0):  # Gathering rows first would not save work.
            return self._update(self._neighbors(*args), *own).index_select(0, index)
        h = self._neighbors(*args, index)
        return self._update(h, *(None if x is None else x.index_select(0, index) for x in own))

    def _neighbors(
        self,
        x: Tensor,
        edge_index: SortedEdges,
        weight: Tensor,
        mean: OptTensor = None,
        index: OptTensor = None,
    ) -> Tensor:
        r"""Contribution of the neighbors before the last activation."""
        # Projection and aggregation commute, so the smaller table is projected.
        shard = shard_of(edge_index)  # All processes with other users decide alike.
        num_sources = x.size(0) if shard is None else shard.num_users
        if mean is None and index is None and num_sources < edge_index.get_sparse_size(1):
            return self._gate(self.conv(project(x, self.lin_neighbor.weight), edge_index, weight))
        mean = self.conv(x, edge_index, weight) if mean is None else mean
        mean = mean if index is None else mean.index_select(0, index)
        weight = self.lin_neighbor.weight
        return checkpoint_rows(lambda rows: self._gate(project(rows, weight)), mean)

    def _gate(self, h: Tensor) -> Tensor:
        weight = self.gate.weight[:, : self.in_channels]
        return project(F.leaky_relu_(h), weight, self.gate.bias)

    def _self(self, x: Tensor, ids: Tensor, scale: OptTensor = None) -> Tensor:
        r"""Contribution of the node itself before the last activation."""
        if scale is None:
            x = project(x, self.lin_self.weight, self.lin_self.bias)
        else:
            x = torch.addcmul(self.lin_self.bias, project(x, self.lin_self.weight), scale)
        weight = self.gate.weight[:, self.in_channels :]
        return project(F.leaky_relu_(x) + ids, weight)

    def _update(self, h: Tensor, *own: Tensor | None) -> Tensor:
        # Equals the product with the concatenation, without building it.
        return F.leaky_relu_(h.add_(checkpoint_rows(self._self, *own)))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.out_channels})'


class MMGCNBranch(nn.Module):
    r"""All layers of one modality, applied to user preferences and item features
    of unit length. The branch caches the aggregated neighbors and the scaling
    factors of tables that are not trained.

    Args:
        num_users: Number of users.
        in_channels: Size of item features.
        latent_channels: Size of projected item features. :obj:`None` uses no
            projection.
        out_channels: Size of output features and of :math:`\mathbf{id}`.
        num_layers: Number of layers.
        train_preference: Whether to train user preferences.

    Shapes:
        - **input:** item features :math:`(N, F)`, :math:`\mathbf{id}` vectors
          :math:`(M, d)` and :math:`(N, d)`, a
          :class:`~motor_geo.nn.graph.BipartiteGraph`, output users
          :math:`(B_u)` and items :math:`(B_i)` *(optional)*
        - **output:** user features :math:`(M, d)` or :math:`(B_u, d)`, item
          features :math:`(N, d)` or :math:`(B_i, d)`
    """

    def __init__(
        self,
        num_users: int,
        in_channels: int,
        latent_channels: int | None,
        out_channels: int,
        num_layers: int,
        train_preference: bool,
    ):
        super().__init__()
        self.lin = None if latent_channels is None else nn.Linear(in_channels, latent_channels)
        width = in_channels if latent_channels is None else latent_channels
        preference = torch.empty(num_users, width)
        self.preference = nn.Parameter(preference, requires_grad=train_preference)
        widths = [width] + [out_channels] * (num_layers - 1)
        self.convs = nn.ModuleList(MMGCNConv(width, out_channels) for width in widths)
        self._users, self._items = Memo(), Memo()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.preference)
        if self.lin is not None:
            self.lin.reset_parameters()
        for conv in self._layers():
            conv.reset_parameters()
        nn.init.xavier_normal_(self._layers()[0].gate.weight)

    def _layers(self) -> list[MMGCNConv]:
        return [cast(MMGCNConv, conv) for conv in self.convs]

    def forward(
        self,
        x: Tensor,
        ids: Embeddings,
        graph: BipartiteGraph,
        rows: Embeddings | None = None,
    ) -> Embeddings:
        r"""Vectors of all users and items in one modality, or of those in :obj:`rows`."""
        user: Tensor = self.preference
        item = x
        user_mean = item_mean = user_scale = item_scale = None
        if user.requires_grad:
            user = normalize_rows(user)
        else:
            user_scale, item_mean = self._constant(
                self._users, user, graph.to_item, graph.to_item_weight
            )
        if self.lin is not None:
            item = normalize_rows(project(x, self.lin.weight, self.lin.bias))
        elif x.requires_grad:
            item = normalize_rows(x.to(self.preference.dtype))
        else:
            item_scale, user_mean = self._constant(
                self._items, x, graph.to_user, graph.to_user_weight
            )

        out, last = Embeddings(user, item), len(self.convs) - 1
        constant = [(user_mean, item_mean), (user_scale, item_scale)]
        for layer, conv in enumerate(self.convs):
            out = conv(out, ids, graph, *constant, rows=rows if layer == last else None)
            constant = []  # For the first layer only.
        return out

    def _constant(
        self, memo: Memo, table: Tensor, edge_index: SortedEdges, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""Factors that scale the rows of an untrained table to unit length, and the
        aggregated neighbors after scaling.
        """

        def compute() -> tuple[Tensor, Tensor]:
            x = table.to(weight.dtype)
            scale = inverse_norm(x)
            return scale, self._layers()[0].conv(x * scale, edge_index, weight)

        # `Module.to` replaces the memory but not the version.
        return memo(compute, table, table.data_ptr(), weight)
