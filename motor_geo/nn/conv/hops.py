from __future__ import annotations

from torch import Tensor, nn
from torch_geometric import EdgeIndex

from motor_geo.nn.conv.propagate import Propagate


class Hops(nn.Module):
    r"""Several hops on a square graph, with the output

    .. math::
        \mathbf{S}^L \mathbf{X} \quad \textrm{or} \quad \frac{1}{L + 1}
        \sum_{l=0}^{L} \mathbf{S}^l \mathbf{X} .

    Args:
        num_layers: Number of hops :math:`L`. With zero, the output is the
            input.
        readout: :obj:`"last"` returns the last hop, :obj:`"mean"` the mean over
            all hops and the input.

    Shapes:
        - **input:** features :math:`(|\mathcal{V}|, F)`, edge indices
          :math:`(2, |\mathcal{E}|)` sorted by column, edge weights
          :math:`(|\mathcal{E}|)`, output nodes :math:`(B)` *(optional; all nodes
          if missing)*
        - **output:** features :math:`(|\mathcal{V}|, F)` or :math:`(B, F)`

    Raises:
        ValueError: If :obj:`num_layers` is negative or :obj:`readout` is
            unknown.
    """

    def __init__(self, num_layers: int, readout: str = 'last'):
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        if readout not in ('last', 'mean'):
            raise ValueError(f"'readout' must be 'last' or 'mean' (got '{readout}')")
        self.num_layers = num_layers
        self.readout = readout
        self.conv = Propagate()

    def forward(
        self, x: Tensor, edge_index: EdgeIndex, edge_weight: Tensor, index: Tensor | None = None
    ) -> Tensor:
        r"""Output of all nodes, or of those in :obj:`index`."""
        own = x / (self.num_layers + 1) if self.readout == 'mean' else None
        x = x if own is None else own
        for hop in range(1, self.num_layers + 1):
            last = index if hop == self.num_layers else None
            if last is None:
                x = self.conv(x, edge_index, edge_weight)
            else:
                x = self.conv.rows(x, edge_index, edge_weight, last)
            if own is not None:  # Horner's rule: X + S (X + S (...)).
                x = x + (own if last is None else own.index_select(0, last))
        return x.index_select(0, index) if self.num_layers == 0 and index is not None else x

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_layers}, readout='{self.readout}')"
