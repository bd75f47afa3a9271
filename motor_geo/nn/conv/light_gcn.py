from __future__ import annotations

from typing import Tuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from motor_geo.nn.conv.propagate import Propagate, csr_matmul, transposed
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
        scale = 1 / (self.num_layers + 1) if self.readout == 'mean' else 1.0
        learned = graph.to_user_weight.requires_grad or graph.to_item_weight.requires_grad
        if self.conv.fuse and not learned:
            return Embeddings(*_LightSum.apply(user, item, graph, self.num_layers, scale))
        x_user, x_item = user, item
        for _ in range(self.num_layers):
            x_user, x_item = (
                self.conv(x_item, graph.to_user, graph.to_user_weight),
                self.conv(x_user, graph.to_item, graph.to_item_weight),
            )
            user, item = user + x_user, item + x_item
        return Embeddings(user * scale, item * scale)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers}, readout={self.readout})'


class _LightSum(torch.autograd.Function):
    r"""The whole sum over layers by Horner's rule,
    :math:`\mathbf{X} + \mathbf{A} (\mathbf{X} + \mathbf{A} ( \cdots ))`, forward
    and backward: no layer is kept.
    """

    @staticmethod
    def forward(  # type: ignore
        ctx, user: Tensor, item: Tensor, graph: BipartiteGraph, num_layers: int, scale: float
    ):
        ctx.options = graph, num_layers, scale
        (user_ptr, user_col), _ = graph.to_user.get_csc()
        (item_ptr, item_col), _ = graph.to_item.get_csc()
        to_user = user_ptr, user_col, graph.to_user_weight
        to_item = item_ptr, item_col, graph.to_item_weight
        return _horner(user, item, to_user, to_item, num_layers, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, user: Tensor, item: Tensor):  # type: ignore
        graph, num_layers, scale = ctx.options
        to_user = transposed(graph.to_item, graph.to_item_weight)
        to_item = transposed(graph.to_user, graph.to_user_weight)
        return *_horner(user, item, to_user, to_item, num_layers, scale), None, None, None


Matrix = Tuple[Tensor, Tensor, Tensor]


def _horner(
    user: Tensor, item: Tensor, to_user: Matrix, to_item: Matrix, num_layers: int, scale: float
) -> Tuple[Tensor, Tensor]:
    if scale != 1 or num_layers == 0:  # What is returned must not be an input.
        user, item = user * scale, item * scale
    x_user, x_item = user, item
    for _ in range(num_layers):
        x_user, x_item = (
            csr_matmul(*to_user, x_item).add_(user),
            csr_matmul(*to_item, x_user).add_(item),
        )
    return x_user, x_item
