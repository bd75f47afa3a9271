from __future__ import annotations

from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.typing import OptTensor
from torch_geometric.utils import softmax

from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.functional.edges import edge_dot, edge_softmax
from motor_geo.nn.graph import SortedEdges


class DotAttention(nn.Module):
    r"""Dot-product attention over in-neighbors from the `"GRCN:
    Graph-Refined Convolutional Network for Multimedia Recommendation with
    Implicit Feedback" <https://arxiv.org/abs/2111.02036>`_ paper,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)} \alpha_{j,i}
        \mathbf{x}_j, \qquad
        \alpha_{j,i} = \frac{\exp(\mathbf{x}_i^{\top} \mathbf{x}_j)}
        {\sum_{k \in \mathcal{N}(i)} \exp(\mathbf{x}_i^{\top} \mathbf{x}_k)} ,

    without parameters, scaling or temperature. The output of a node without
    in-neighbors is zero. Plain edge indices, an
    :class:`~torch_geometric.EdgeIndex` sorted by column with filled caches (see
    :func:`motor_geo.nn.graph.sorted_edge_index`) and
    :class:`~motor_geo.nn.graph.SortedEdges` give the same numbers, but plain ones
    create tensors of size :math:`|\mathcal{E}| \times F`.

    Shapes:
        - **input:** source and target features
          :math:`((|\mathcal{V}_s|, F), (|\mathcal{V}_t|, F))`,
          edge indices :math:`(2, |\mathcal{E}|)`,
          inner products :math:`(|\mathcal{E}|)` *(optional; computed if
          missing)*
        - **output:** target features :math:`(|\mathcal{V}_t|, F)`,
          attention :math:`(|\mathcal{E}|)`
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = Propagate()

    def forward(
        self, x: tuple[Tensor, Tensor], edge_index: Tensor | SortedEdges, logit: OptTensor = None
    ) -> tuple[Tensor, Tensor]:
        r"""Weighted sums over the neighbors of every target, and the attention of
        every edge.
        """
        x_src, x_dst = x
        size = (x_src.size(0), x_dst.size(0))
        if isinstance(edge_index, EdgeIndex | SortedEdges):
            if logit is None:
                logit = edge_dot(x_src, x_dst, edge_index)
            alpha = edge_softmax(logit, edge_index)
        else:
            source, target = edge_index
            if logit is None:
                logit = (x_src[source] * x_dst[target]).sum(dim=-1)
            alpha = softmax(logit, target, num_nodes=size[1])
        return self.conv(x_src, edge_index, alpha, size), alpha

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'
