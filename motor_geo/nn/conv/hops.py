from __future__ import annotations

from torch import Tensor, nn
from torch_geometric import EdgeIndex

from motor_geo.nn.conv.propagate import Propagate


class Hops(nn.Module):
    r"""Several hops on a square graph, :math:`\mathbf{S}^L \mathbf{X}`.

    Args:
        num_layers: Number of hops :math:`L`; zero returns the input.

    Shapes:
        - **input:** features :math:`(|\mathcal{V}|, F)`, edge indices
          :math:`(2, |\mathcal{E}|)` sorted by column, edge weights
          :math:`(|\mathcal{E}|)`, the nodes :math:`(B)` that the result is
          needed for *(optional)*
        - **output:** features :math:`(|\mathcal{V}|, F)` or :math:`(B, F)`

    Raises:
        ValueError: If :obj:`num_layers` is negative.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        self.num_layers = num_layers
        self.conv = Propagate()

    def forward(
        self, x: Tensor, edge_index: EdgeIndex, edge_weight: Tensor, index: Tensor | None = None
    ) -> Tensor:
        for hop in range(1, self.num_layers + 1):
            if hop == self.num_layers and index is not None:
                return self.conv.rows(x, edge_index, edge_weight, index)
            x = self.conv(x, edge_index, edge_weight)
        return x if index is None else x.index_select(0, index)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers})'
