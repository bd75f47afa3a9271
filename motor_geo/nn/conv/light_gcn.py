from __future__ import annotations

from torch import Tensor, nn

from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.typing import Embeddings


class LightPropagation(nn.Module):
    r"""Repeated hops on both sides of a user-item graph, from the `"LightGCN:
    Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_ paper,

    .. math::
        \mathbf{u}^{(l+1)} = \sum_{i \in \mathcal{N}(u)} e_{u,i} \mathbf{i}^{(l)},
        \qquad
        \mathbf{i}^{(l+1)} = \sum_{u \in \mathcal{N}(i)} e_{u,i} \mathbf{u}^{(l)},

    read out as

    .. math::
        \mathbf{X} = \frac{1}{L+1} \sum_{l=0}^{L} \mathbf{X}^{(l)}
        \quad \textrm{or} \quad
        \mathbf{X} = \sum_{l=0}^{L} \mathbf{X}^{(l)}.

    Args:
        num_layers: Number of hops :math:`L`; zero returns the input.
        readout: :obj:`"mean"` or :obj:`"sum"` over layers, the input included.

    Shapes:
        - **input:** user features :math:`(M, F)` and item features
          :math:`(N, F)`, a :class:`~motor_geo.nn.graph.BipartiteGraph`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`

    Raises:
        ValueError: If :obj:`num_layers` is negative or :obj:`readout` unknown.
    """

    def __init__(self, num_layers: int, readout: str = 'mean'):
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        if readout not in ('mean', 'sum'):
            raise ValueError(f"'readout' must be 'mean' or 'sum' (got '{readout}')")
        self.num_layers = num_layers
        self.readout = readout
        self.conv = Propagate()

    def forward(self, user: Tensor, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        x_user, x_item = user, item
        for _ in range(self.num_layers):
            x_user, x_item = (
                self.conv(x_item, graph.to_user, graph.to_user_weight),
                self.conv(x_user, graph.to_item, graph.to_item_weight),
            )
            user, item = user + x_user, item + x_item
        if self.readout == 'mean' and self.num_layers > 0:
            user = user / (self.num_layers + 1)
            item = item / (self.num_layers + 1)
        return Embeddings(user, item)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers}, readout={self.readout})'
