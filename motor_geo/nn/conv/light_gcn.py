from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from motor_geo.nn.functional.layers import LightGraph, light_rows, light_sum
from motor_geo.typing import Batch, Embeddings, Rows


class LightBatch(NamedTuple):
    r"""Vectors of a batch after and before propagation, and the vectors of all nodes
    after propagation if they were requested.
    """

    out: Rows
    x: Rows
    tables: Embeddings | None


class LightRows(NamedTuple):
    r"""Rows of the output of :class:`~motor_geo.nn.conv.LightPropagation` and of its
    input.
    """

    out: Embeddings
    x: Embeddings


class LightPropagation(nn.Module):
    r"""Several hops on a user-item graph from the `"LightGCN:
    Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_ paper,

    .. math::
        \mathbf{u}^{(l+1)} = \sum_{i \in \mathcal{N}(u)} e_{u,i} \mathbf{i}^{(l)},
        \qquad
        \mathbf{i}^{(l+1)} = \sum_{u \in \mathcal{N}(i)} e_{u,i} \mathbf{u}^{(l)},

    with the output

    .. math::
        \mathbf{X} = \frac{1}{L+1} \sum_{l=0}^{L} \mathbf{X}^{(l)}
        \quad \textrm{or} \quad
        \mathbf{X} = \sum_{l=0}^{L} \mathbf{X}^{(l)}.

    Args:
        num_layers: Number of hops :math:`L`. With zero, the output is the
            input.
        readout: :obj:`"mean"` or :obj:`"sum"` over all layers and the input.

    Shapes:
        - **input:** user features :math:`(M, F)` and item features
          :math:`(N, F)`, a :class:`~motor_geo.nn.graph.BipartiteGraph`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`

    Raises:
        ValueError: If :obj:`num_layers` is negative or :obj:`readout` is
            unknown.
    """

    def __init__(self, num_layers: int, readout: str = 'mean'):
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        if readout not in ('mean', 'sum'):
            raise ValueError(f"'readout' must be 'mean' or 'sum' (got '{readout}')")
        self.num_layers = num_layers
        self.readout = readout
        self.scale = 1 / (num_layers + 1) if readout == 'mean' else 1.0
        #: Whether the mean is only over layers that exist. A node without edges has one layer.
        self.existing = False

    def forward(self, user: Tensor, item: Tensor, graph: LightGraph) -> Embeddings:
        r"""Vectors of all users and items after propagation."""
        out = Embeddings(*light_sum(user, item, graph, self.num_layers, self.scale))
        if not self.existing:
            return out
        return Embeddings(*(x * scale for x, scale in zip(out, self._shares(graph, out))))

    def _shares(self, graph: LightGraph, like: Embeddings) -> tuple[Tensor, Tensor]:
        r"""Factors that restore the length of nodes without edges."""
        scales = []
        for edges, x in zip((graph.to_user, graph.to_item), like):
            alone = edges.degree() == 0
            scales.append(torch.where(alone, 1 / self.scale, 1.0).to(x).view(-1, 1))
        return scales[0], scales[1]

    def rows(
        self,
        user: Tensor,
        item: Tensor,
        graph: LightGraph,
        user_index: Tensor,
        item_index: Tensor,
    ) -> LightRows:
        r"""Vectors of some users and items, after and before propagation. Layers
        are added up for these rows only, and the last hop skips all other rows
        if this takes less work.

        Args:
            user: User features.
            item: Item features.
            graph: The user-item graph.
            user_index: The users.
            item_index: The items.

        Shapes:
            - **input:** user features :math:`(M, F)` and item features
              :math:`(N, F)`, a :class:`~motor_geo.nn.graph.BipartiteGraph`,
              users :math:`(B)`, items :math:`(C)`
            - **output:** user features :math:`(B, F)` and item features
              :math:`(C, F)`, after and before propagation
        """
        args = user, item, graph, self.num_layers, self.scale, user_index, item_index
        out_user, out_item, x_user, x_item = light_rows(*args)
        if self.existing:
            users, items = self._shares(graph, Embeddings(out_user, out_item))
            out_user = out_user * users.index_select(0, user_index)
            out_item = out_item * items.index_select(0, item_index)
        return LightRows(Embeddings(out_user, out_item), Embeddings(x_user, x_item))

    def batch(
        self, user: Tensor, item: Tensor, graph: LightGraph, batch: Batch, tables: bool = False
    ) -> LightBatch:
        r"""Vectors of a batch, see :meth:`rows`.

        Args:
            user: User features.
            item: Item features.
            graph: The user-item graph.
            batch: Users, positive items and negative items.
            tables: If set to :obj:`True`, also returns the vectors of all nodes.
        """
        if tables:
            out = self(user, item, graph)
            return LightBatch(batch.rows(out), batch.rows(Embeddings(user, item)), out)
        size = [batch.pos.numel(), batch.neg.numel()]
        index = torch.cat([batch.pos, batch.neg])
        out, x = self.rows(user, item, graph, batch.user, index)
        return LightBatch(
            Rows(out.user, *out.item.split(size)), Rows(x.user, *x.item.split(size)), None
        )

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers}, readout={self.readout})'
