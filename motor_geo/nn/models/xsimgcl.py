from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.models.simgcl import SimGCL
from motor_geo.typing import RATES, Batch, Embeddings


class XSimGCL(SimGCL):
    r"""XSimGCL from the `"XSimGCL: Towards Extremely Simple Graph Contrastive
    Learning for Recommendation" <https://arxiv.org/abs/2209.02544>`_ paper: as
    :class:`SimGCL`, but noise is in the vectors that are ranked in training,
    and their mean over layers is contrasted with one layer of the same pass,

    .. math::
        \mathbf{X} = \frac{1}{L} \sum_{l=1}^{L} \mathbf{X}^{(l)} \quad
        \textrm{with} \quad \mathbf{X}^{(l^*)} .

    Ranking for evaluation has no noise.

    ID-free: the item rows of :math:`\mathbf{X}^{(0)}` are computed from
    tokens.

    Args:
        data: The user-item graph.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        noise: Length of the noise in every layer.
        cl_weight: Weight of the contrast.
        cl_layer: The layer :math:`l^*`, from one on.
        temperature: Temperature of the contrast.
        reg_weight: Weight of half the squared rows of :math:`\mathbf{X}^{(0)}`
            in the batch, divided by its size.
        edge_type: Edge type of training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 3,
        noise: float = 0.2,
        cl_weight: float = 0.2,
        cl_layer: int = 1,
        temperature: float = 0.15,
        reg_weight: float = 1e-4,
        edge_type: EdgeType = RATES,
    ):
        if not 1 <= cl_layer <= num_layers:
            raise ValueError(
                f"'cl_layer' must lie between 1 and 'num_layers', {num_layers} (got {cl_layer})"
            )
        options = num_layers, noise, cl_weight, temperature, reg_weight
        super().__init__(data, item_encoder, channels, *options, edge_type=edge_type)
        self.cl_layer = cl_layer

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        users, items = distinct(batch.user), distinct(batch.pos)
        tables = self.encode(data)
        index = Embeddings(users.node, torch.cat([items.node, batch.neg]))
        out, layer = self.propagation.noisy(*tables, self.graph(data), index, self.cl_layer)
        losses = self.ranking_losses(data, batch, tables, out, users, items)
        if self.cl_weight > 0 and layer is not None:
            pos = [x.item[: items.node.numel()] for x in (out, layer)]
            first, second = Embeddings(out.user, pos[0]), Embeddings(layer.user, pos[1])
            losses |= self.contrast(first, second, users, items)
        return losses
