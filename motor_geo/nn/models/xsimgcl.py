from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.models.simgcl import SimGCL
from motor_geo.typing import RATES, Batch, Embeddings
from motor_geo.utils.numbers import positive


class XSimGCL(SimGCL):
    r"""XSimGCL from the `"XSimGCL: Towards Extremely Simple Graph Contrastive
    Learning for Recommendation" <https://arxiv.org/abs/2209.02544>`_ paper. Like
    :class:`SimGCL`, it adds noise to every layer. However, the ranking loss uses
    the vectors with noise, and the contrastive loss compares their mean over
    layers with one layer of the same forward pass,

    .. math::
        \mathbf{X} = \frac{1}{L} \sum_{l=1}^{L} \mathbf{X}^{(l)} \quad
        \textrm{with} \quad \mathbf{X}^{(l^*)} .

    Evaluation adds no noise.

    ID-free: The item rows of :math:`\mathbf{X}^{(0)}` are computed from
    tokens.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        noise: Length :math:`\epsilon` of the noise in every layer.
        cl_weight: Weight of the contrastive loss.
        cl_layer: Layer :math:`l^*`, between one and :obj:`num_layers`.
        temperature: Temperature of the contrastive loss.
        reg_weight: Weight of half the sum of squared entries of the batch rows
            of :math:`\mathbf{X}^{(0)}`, divided by the size of the batch.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    needs_all_users = None

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
        positive('num_layers', num_layers)
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
