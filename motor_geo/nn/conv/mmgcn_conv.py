from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motor_geo.nn.conv.propagate import Propagate
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
          :math:`(N, F_{out})`, a :class:`~motor_geo.nn.graph.BipartiteGraph`
        - **output:** user features :math:`(M, F_{out})`, item features
          :math:`(N, F_{out})`
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

    def forward(self, x: Embeddings, ids: Embeddings, graph: BipartiteGraph) -> Embeddings:
        # Projecting after the mean costs the same, and constant inputs of the
        # first layer then need no backward pass through the graph.
        user = self.conv(x.item, graph.to_user, graph.to_user_weight)
        item = self.conv(x.user, graph.to_item, graph.to_item_weight)
        return Embeddings(
            self._update(user, x.user, ids.user), self._update(item, x.item, ids.item)
        )

    def _update(self, neighbors: Tensor, x: Tensor, ids: Tensor) -> Tensor:
        h = F.leaky_relu(self.lin_neighbor(neighbors))
        x = F.leaky_relu(self.lin_self(x)) + ids
        return F.leaky_relu(self.gate(torch.cat([h, x], dim=-1)))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.out_channels})'
