from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from motor_geo.nn.conv.light_gcn import LightPropagation
from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.functional.dropout import perturb_rows
from motor_geo.nn.graph import BipartiteGraph, shard_of
from motor_geo.typing import Embeddings
from motor_geo.utils.numbers import not_negative


class NoisyLayers(NamedTuple):
    r"""The mean over layers, and the output of one layer if it was requested."""

    mean: Embeddings
    layer: Embeddings | None


class NoisyPropagation(nn.Module):
    r"""LightGCN without the input in its mean and with noise of length
    :math:`\epsilon`, which has the signs of the vector it is added to, from the
    `"Are Graph Augmentations Necessary? Simple Graph Contrastive Learning for
    Recommendation" <https://arxiv.org/abs/2112.08679>`_ paper,

    .. math::
        \mathbf{X}^{(l)} = \mathbf{Y} + \epsilon \, \textrm{sign}(\mathbf{Y})
        \odot \frac{\boldsymbol{\omega}}{\| \boldsymbol{\omega} \|}, \quad
        \mathbf{Y} = \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{X}^{(l-1)}, \quad
        \mathbf{X} = \frac{1}{L} \sum_{l=1}^{L} \mathbf{X}^{(l)} ,

    where :math:`\boldsymbol{\omega}` is uniform in :math:`[0, 1)`. Every layer
    draws it first for users and then for items.

    Args:
        num_layers: Number of hops :math:`L`, at least one.
        noise: Length :math:`\epsilon` of the noise.

    Shapes:
        - **input:** user features :math:`(M, F)` and item features
          :math:`(N, F)`, a :class:`~motor_geo.nn.graph.BipartiteGraph`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`

    Raises:
        ValueError: If :obj:`num_layers` is not positive or :obj:`noise` is
            negative.
    """

    def __init__(self, num_layers: int, noise: float):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"'num_layers' must be positive (got {num_layers})")
        self.num_layers = num_layers
        self.noise = not_negative('noise', noise)
        self.light = LightPropagation(num_layers - 1)
        self.conv = Propagate()

    def forward(self, user: Tensor, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        r"""The mean over layers without noise."""
        user, item = self.light(user, item, graph)  # A times the mean of A^0 to A^(L-1).
        return Embeddings(
            self.conv(item, graph.to_user, graph.to_user_weight),
            self.conv(user, graph.to_item, graph.to_item_weight),
        )

    def rows(
        self, user: Tensor, item: Tensor, graph: BipartiteGraph, rows: Embeddings
    ) -> Embeddings:
        r"""The mean over layers without noise, for some users **[B]** and items
        **[C]**.
        """
        user, item = self.light(user, item, graph)
        return Embeddings(
            self.conv.rows(item, graph.to_user, graph.to_user_weight, rows.user),
            self.conv.rows(user, graph.to_item, graph.to_item_weight, rows.item),
        )

    def noisy(
        self,
        user: Tensor,
        item: Tensor,
        graph: BipartiteGraph,
        rows: Embeddings,
        layer: int | None = None,
    ) -> NoisyLayers:
        r"""The mean over layers with noise, for some users **[B]** and items **[C]**,
        and their vectors in the given layer.
        """
        total: Embeddings | None = None
        found: Embeddings | None = None
        shard = shard_of(graph.to_item)
        for hop in range(1, self.num_layers + 1):
            user, item = (
                perturb_rows(
                    self.conv(item, graph.to_user, graph.to_user_weight), self.noise, shard
                ),
                perturb_rows(self.conv(user, graph.to_item, graph.to_item_weight), self.noise),
            )
            own = Embeddings(user.index_select(0, rows.user), item.index_select(0, rows.item))
            found = own if hop == layer else found
            total = own if total is None else Embeddings(*(a + b for a, b in zip(total, own)))
        assert total is not None
        return NoisyLayers(Embeddings(*(x / self.num_layers for x in total)), found)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers}, noise={self.noise})'
