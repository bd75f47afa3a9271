from __future__ import annotations

import torch
from torch import Tensor, nn

from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.typing import Embeddings


class SelfLoopPropagation(nn.Module):
    r"""Several hops on a user-item graph with self-loops and row
    normalization,

    .. math::
        \mathbf{X}^{(l+1)} = \tilde{\mathbf{D}}^{-1} (\mathbf{A} + \mathbf{I})
        \mathbf{X}^{(l)}, \qquad
        \mathbf{X} = \frac{1}{L+1} \sum_{l=0}^{L} \mathbf{X}^{(l)} ,

    from the `"Mining Latent Structures for Multimedia Recommendation"
    <https://arxiv.org/abs/2104.09036>`_ paper. Every node averages itself and
    its neighbors, so a node without edges keeps its vector.

    Args:
        num_layers: Number of hops :math:`L`. With zero, the output is the
            input.

    Shapes:
        - **input:** user features :math:`(M, F)` and item features
          :math:`(N, F)`, a graph from :meth:`normalize`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`

    Raises:
        ValueError: If :obj:`num_layers` is negative.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        self.num_layers = num_layers
        self.conv = Propagate()

    @staticmethod
    def normalize(graph: BipartiteGraph) -> BipartiteGraph:
        r"""The same edges with the weights :math:`1 / (\deg + 1)` of their targets."""
        weights = []
        for edges in (graph.to_user, graph.to_item):
            weight = (edges.degree() + 1).to(graph.to_user_weight.dtype).reciprocal()
            weights.append(edges.spread(weight))
        return graph._replace(to_user_weight=weights[0], to_item_weight=weights[1])

    def forward(self, user: Tensor, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        r"""Vectors of all users and items after propagation."""
        loop_user = (graph.to_user.degree() + 1).to(user.dtype).reciprocal().view(-1, 1)
        loop_item = (graph.to_item.degree() + 1).to(item.dtype).reciprocal().view(-1, 1)
        x_user, x_item = user, item
        for _ in range(self.num_layers):
            x_user, x_item = (
                torch.addcmul(
                    self.conv(x_item, graph.to_user, graph.to_user_weight), x_user, loop_user
                ),
                torch.addcmul(
                    self.conv(x_user, graph.to_item, graph.to_item_weight), x_item, loop_item
                ),
            )
            user, item = user + x_user, item + x_item
        return Embeddings(user / (self.num_layers + 1), item / (self.num_layers + 1))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers})'
