from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv.noisy_propagation import NoisyPropagation
from motor_geo.nn.functional.distinct import Distinct, distinct
from motor_geo.nn.loss import info_nce, l2_reg
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings, Rows
from motor_geo.utils.numbers import positive


class SimGCL(Recommender):
    r"""SimGCL from the `"Are Graph Augmentations Necessary? Simple Graph
    Contrastive Learning for Recommendation"
    <https://arxiv.org/abs/2112.08679>`_ paper. It uses LightGCN without the
    input in its mean over layers,

    .. math::
        \mathbf{X} = \frac{1}{L} \sum_{l=1}^{L} \left( \mathbf{D}^{-1/2}
        \mathbf{A} \mathbf{D}^{-1/2} \right)^l \mathbf{X}^{(0)} ,

    and contrasts two copies with noise in every layer, see
    :class:`~motor_geo.nn.conv.noisy_propagation.NoisyPropagation`. The
    contrastive loss runs over the users and over the positive items of a batch.
    An item without training edges scores zero.

    ID-free: The item rows of :math:`\mathbf{X}^{(0)}` are computed from
    tokens.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        noise: Length :math:`\epsilon` of the noise.
        cl_weight: Weight of the contrastive loss.
        temperature: Temperature of the contrastive loss.
        reg_weight: Weight of half the sum of squared entries of the batch rows
            of :math:`\mathbf{X}^{(0)}`, divided by the size of the batch.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    takes_user_encoder = True
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 3,
        noise: float = 0.1,
        cl_weight: float = 0.5,
        temperature: float = 0.2,
        reg_weight: float = 1e-4,
        edge_type: EdgeType = RATES,
    ):
        positive('temperature', temperature)
        super().__init__(data, item_encoder, channels, edge_type)
        self.cl_weight = cl_weight
        self.temperature = temperature
        self.reg_weight = reg_weight
        self.propagation = NoisyPropagation(num_layers, noise)

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagation(*self.encode(data), self.graph(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        users, items = distinct(batch.user), distinct(batch.pos)
        tables = self.encode(data)
        graph = self.graph(data)
        index = Embeddings(users.node, torch.cat([items.node, batch.neg]))
        out = self.propagation.rows(*tables, graph, index)
        losses = self.ranking_losses(data, batch, tables, out, users, items)
        if self.cl_weight > 0:
            index = Embeddings(users.node, items.node)
            views = [self.propagation.noisy(*tables, graph, index).mean for _ in range(2)]
            losses |= self.contrast(views[0], views[1], users, items)
        return losses

    def ranking_losses(
        self,
        data: HeteroData,
        batch: Batch,
        tables: Embeddings,
        out: Embeddings,
        users: Distinct,
        items: Distinct,
    ) -> dict[str, Tensor]:
        r"""Ranking loss and regularizer.

        Args:
            data: The user-item graph.
            batch: Users, positive items and negative items.
            tables: User and item vectors before propagation.
            out: Vectors of distinct users, and of distinct positive items followed
                by all negative items.
            users: Distinct users of the batch.
            items: Distinct positive items of the batch.
        """
        pos, neg = out.item.split([items.node.numel(), batch.neg.numel()])
        user, pos = out.user.index_select(0, users.inverse), pos.index_select(0, items.inverse)
        rows = Rows(user, pos, neg)
        losses = self.ranking(data, batch, rows)
        if self.reg_weight > 0:
            reg = l2_reg(*batch.rows(tables)) / max(batch.user.numel(), 1)
            losses['reg'] = self.reg_weight * reg
        return losses

    def contrast(
        self, first: Embeddings, second: Embeddings, users: Distinct, items: Distinct
    ) -> dict[str, Tensor]:
        r"""Contrastive losses between two copies of users and of items."""
        return {
            f'cl_{name}': self.cl_weight * info_nce(a, b, self.temperature, (nodes, nodes))
            for name, a, b, nodes in zip(('user', 'item'), first, second, (users, items))
        }
