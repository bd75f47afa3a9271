from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor, SparseTensor
from torch_geometric.utils import spmm

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.spmm import Edges, propagate, propagate_rows
from motor_geo.nn.graph import SortedEdges
from motor_geo.nn.memo import Memo


class Propagate(MessagePassing):
    r"""Weighted sum of neighbors, which all propagation in this package uses,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)} e_{j,i} \mathbf{x}_j

    on square and bipartite graphs. All input formats give the same values and
    gradients. An :class:`~torch_geometric.EdgeIndex` sorted by column with
    filled caches (see :func:`motor_geo.nn.graph.sorted_edge_index`) and
    :class:`~motor_geo.nn.graph.SortedEdges` are by far the fastest, since their
    backward pass multiplies with a stored transpose.

    Args:
        **kwargs: Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:**
          source features :math:`(|\mathcal{V}_s|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)` or the *transposed* sparse
          adjacency matrix :math:`(|\mathcal{V}_t|, |\mathcal{V}_s|)`,
          edge weights :math:`(|\mathcal{E}|)` *(optional; part of the matrix
          if that is sparse)*, sizes
          :math:`(|\mathcal{V}_s|, |\mathcal{V}_t|)` *(optional; a square graph
          if missing)*
        - **output:** target features :math:`(|\mathcal{V}_t|, F)`

    Raises:
        ValueError: If :obj:`edge_weight` has a wrong shape, or is given together
            with a sparse matrix.
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(self, **kwargs: Any):
        kwargs.setdefault('aggr', 'add')
        super().__init__(**kwargs)
        self._resized = Memo()

    @full_precision
    def forward(
        self,
        x: Tensor,
        edge_index: Adj | SortedEdges,
        edge_weight: OptTensor = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        r"""Weighted sums over the neighbors of every target. Without
        :obj:`edge_weight`, all weights are one.
        """
        if isinstance(edge_index, SortedEdges):
            edge_weight = _flat_weight(edge_index, edge_weight)
            if self.fuse and not self._has_hooks():
                return propagate(x, edge_index, edge_weight)
            edge_index = self._resized(edge_index.to_edge_index, edge_index)
        if isinstance(edge_index, EdgeIndex):
            edge_weight = _flat_weight(edge_index, edge_weight)
            rows, cols = size if size is not None else edge_index.sparse_size()
            rows = x.size(0) if rows is None else rows
            size = rows, rows if cols is None else cols
            edge_index = self._resize(edge_index, size)
            # PyG inspects the edge index, which fails under inference mode.
            if torch.is_inference_mode_enabled():
                if self.fuse and edge_index.is_sorted_by_col:
                    return propagate(x, edge_index, edge_weight)
                edge_index = edge_index.as_tensor()
        elif isinstance(edge_index, Tensor) and edge_index.layout == torch.strided:
            edge_weight = _flat_weight(edge_index, edge_weight)
            size = (x.size(0), x.size(0)) if size is None else size
        elif edge_weight is not None:
            raise ValueError(
                "'edge_weight' cannot be given together with a sparse matrix: "
                'its values are the weights'
            )
        # propagate_type: (x: OptPairTensor, edge_weight: OptTensor)
        return self.propagate(edge_index, x=(x, None), edge_weight=edge_weight, size=size)

    def rows(self, x: Tensor, edge_index: Edges, edge_weight: Tensor, index: Tensor) -> Tensor:
        r"""Output of :meth:`forward` at the targets in :obj:`index`, which may
        repeat. All other targets are skipped if this takes less work.

        Shapes:
            - **input:** source features :math:`(|\mathcal{V}_s|, F)`, edge
              indices :math:`(2, |\mathcal{E}|)` sorted by column, edge weights
              :math:`(|\mathcal{E}|)`, targets :math:`(B)`
            - **output:** target features :math:`(B, F)`
        """
        edge_weight = _flat_weight(edge_index, edge_weight)
        if not self.fuse:
            return self(x, edge_index, edge_weight).index_select(0, index)
        return propagate_rows(x, edge_index, edge_weight, index)

    def _has_hooks(self) -> bool:
        return any(
            getattr(self, f'_{name}_hooks')
            for name in (
                'propagate_forward_pre',
                'propagate_forward',
                'message_and_aggregate_forward_pre',
                'message_and_aggregate_forward',
            )
        )

    def _resize(self, edge_index: EdgeIndex, size: tuple[int, int]) -> EdgeIndex:
        # Does not modify the edge index of the caller.
        if edge_index.sparse_size() == size:
            return edge_index

        def resize() -> EdgeIndex:
            out = EdgeIndex(
                edge_index.as_tensor(),
                sparse_size=size,
                sort_order=edge_index.sort_order,
                is_undirected=edge_index.is_undirected,
            )
            return out.fill_cache_() if out.is_sorted_by_col else out

        return self._resized(resize, edge_index, size)

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        r"""Source features, multiplied by edge weights."""
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    def message_and_aggregate(
        self, edge_index: Adj, x: tuple[Tensor, OptTensor], edge_weight: OptTensor
    ) -> Tensor:
        r"""The weighted sums, computed as one sparse product."""
        if isinstance(edge_index, EdgeIndex):
            return propagate(x[0], edge_index, edge_weight)
        if isinstance(edge_index, SparseTensor) and edge_index.dtype() != x[0].dtype:
            edge_index = edge_index.type(x[0].dtype)
        return spmm(edge_index, x[0], reduce='sum')


def _flat_weight(edge_index: Tensor | SortedEdges, edge_weight: OptTensor) -> OptTensor:
    if edge_weight is None:
        return edge_weight
    num_edges = edge_index.size(1)
    if edge_weight.dim() == 1 and edge_weight.size(0) == num_edges:
        return edge_weight
    if edge_weight.dim() == 2 and edge_weight.size() == (num_edges, 1):
        return edge_weight.squeeze(1)
    raise ValueError(f"'edge_weight' must have shape [{num_edges}], got {list(edge_weight.shape)}")
