from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.typing import OptTensor

from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.functional.rows import checkpoint_rows, project
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.typing import Embeddings


class MMGCNConv(nn.Module):
    r"""The layer of the `"MMGCN: Multi-modal Graph Convolution Network for
    Personalized Recommendation of Micro-video"
    <https://doi.org/10.1145/3343031.3351034>`_ paper in its concatenated form,

    .. math::
        \mathbf{x}^{\prime}_v = \phi \Big( \mathbf{W}_g \Big[ \phi \big(
        \mathbf{W}_c \sum_{w \in \mathcal{N}(v)} e_{w,v} \mathbf{x}_w \big)
        \, \Vert \, \phi(\mathbf{W}_l \mathbf{x}_v + \mathbf{b}_l) +
        \mathbf{id}_v \Big] + \mathbf{b}_g \Big)

    on both sides of a user-item graph, with the leaky ReLU :math:`\phi`; the
    edge weights of a mean over neighbours are
    :math:`e_{w,v} = 1 / \deg(v)`.

    Args:
        in_channels: Size of input features.
        out_channels: Size of output features and of :math:`\mathbf{id}`.

    Shapes:
        - **input:** features :math:`(M, F_{in})` and :math:`(N, F_{in})`,
          :math:`\mathbf{id}` vectors :math:`(M, F_{out})` and
          :math:`(N, F_{out})`, a :class:`~motor_geo.nn.graph.BipartiteGraph`,
          means over neighbours of the shapes of features *(optional; computed
          where* :obj:`None` *)*, factors :math:`(M, 1)` and :math:`(N, 1)` of
          features that are given raw *(optional; their means over neighbours
          have them already)*, the users :math:`(B_u)` and items :math:`(B_i)`
          that output is needed for *(optional)*
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
        user = x.item, graph.to_user, graph.to_user_weight, mean[0]
        item = x.user, graph.to_item, graph.to_item_weight, mean[1]
        outs = []
        for args, *own, index in zip((user, item), x, ids, scale, rows or (None, None)):
            if index is None:
                outs.append(self._update(self._neighbors(*args), *own))
            elif index.numel() > own[0].size(0):  # Nothing would be spared.
                out = self._update(self._neighbors(*args), *own)
                outs.append(out.index_select(0, index))
            else:
                h = self._neighbors(*args, index=index)
                own = [None if table is None else table.index_select(0, index) for table in own]
                outs.append(self._update(h, *own))
        return Embeddings(*outs)

    def _neighbors(
        self,
        x: Tensor,
        edge_index: EdgeIndex,
        weight: Tensor,
        mean: OptTensor = None,
        index: OptTensor = None,
    ) -> Tensor:
        r"""What neighbours add before the last activation."""
        # Projection and mean commute: the smaller table is projected.
        if mean is None and index is None and x.size(0) < edge_index.sparse_size(1):
            return self._gate(self.conv(project(x, self.lin_neighbor.weight), edge_index, weight))
        mean = self.conv(x, edge_index, weight) if mean is None else mean
        mean = mean if index is None else mean.index_select(0, index)
        weight = self.lin_neighbor.weight
        return checkpoint_rows(lambda rows: self._gate(project(rows, weight)), mean)

    def _gate(self, h: Tensor) -> Tensor:
        weight = self.gate.weight[:, : self.in_channels]
        return project(F.leaky_relu_(h), weight, self.gate.bias)

    def _self(self, x: Tensor, ids: Tensor, scale: OptTensor = None) -> Tensor:
        r"""What a node itself adds before the last activation."""
        if scale is None:
            x = project(x, self.lin_self.weight, self.lin_self.bias)
        else:
            x = torch.addcmul(self.lin_self.bias, project(x, self.lin_self.weight), scale)
        weight = self.gate.weight[:, self.in_channels :]
        return project(F.leaky_relu_(x) + ids, weight)

    def _update(self, h: Tensor, *own: Tensor | None) -> Tensor:
        # The product with a concatenation, without one.
        return F.leaky_relu_(h.add_(checkpoint_rows(self._self, *own)))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.out_channels})'
