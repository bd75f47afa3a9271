from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation
from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.dropout import drop_entries
from motor_geo.nn.graph import BipartiteGraph, shard_of, shared_order
from motor_geo.nn.loss import l2_reg
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.bm3 import normalize
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings


class SelfCF(Recommender):
    r"""SelfCF with dropout of embeddings and edges from the `"SelfCF: A Simple
    Framework for Self-supervised Collaborative Filtering"
    <https://arxiv.org/abs/2107.03019>`_ paper. It uses no negatives. A predictor
    :math:`p` predicts the vector of an item, after dropout, from its user, and
    vice versa, for every observed pair,

    .. math::
        s(u, i) = p(\mathbf{u}_u)^{\top} \mathbf{i}_i + \mathbf{u}_u^{\top}
        p(\mathbf{i}_i), \qquad
        - \frac{1}{2} \cos(p(\mathbf{u}), \tilde{\mathbf{i}})
        - \frac{1}{2} \cos(p(\mathbf{i}), \tilde{\mathbf{u}})

    with :math:`\mathbf{U}` and :math:`\mathbf{I}` from LightGCN and
    :math:`\tilde{\mathbf{x}}` a target (with dropout, without gradient). The
    loss drops edges in every batch, independently in both directions. By
    default, every batch draws its own dropout rate.

    ID-free: The item rows at the input of LightGCN are computed from tokens.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        dropout: Dropout probability of targets. Every row of a batch has its
            own mask.
        edge_dropout: Dropout probability :math:`p` of edges. The weights of all
            other edges are divided by :math:`1 - p`. :obj:`None` draws
            :math:`p` uniformly from :math:`[0, 1)` for every batch.
        reg_weight: Weight of half the sum of squared entries of the batch rows
            of :math:`\mathbf{U}` and :math:`\mathbf{I}`.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, 2d)`, item vectors
          :math:`(N, 2d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    takes_user_encoder = True
    needs_negatives = False
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        dropout: float = 0.5,
        edge_dropout: float | None = None,
        reg_weight: float = 1e-3,
        edge_type: EdgeType = RATES,
    ):
        for name, value in (('dropout', dropout), ('edge_dropout', edge_dropout)):
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"'{name}' must lie in [0, 1) (got {value})")
        super().__init__(data, item_encoder, channels, edge_type)
        self.dropout = dropout
        self.edge_dropout = edge_dropout
        self.reg_weight = reg_weight
        self.propagation = LightPropagation(num_layers)
        self.predictor = nn.Linear(channels, channels)
        self._orders = Memo()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.predictor.reset_parameters()

    def forward(self, data: HeteroData) -> Embeddings:
        out = self.propagation(*self.encode(data), self.graph(data))
        return Embeddings(
            torch.cat([self.predictor(out.user), out.user], dim=1),
            torch.cat([out.item, self.predictor(out.item)], dim=1),
        )

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        graph = self.drop_edges(self.graph(data))
        tables = self.encode(data)
        (user, item), _ = self.propagation.rows(*tables, graph, batch.user, batch.pos)
        predicted = normalize(self.predictor(torch.cat([user, item])), eps=1e-8).chunk(2)
        targets = (
            normalize(self.drop(x.detach(), kind), eps=1e-8)
            for kind, x in (('item', item), ('user', user))
        )
        cosines = [mean_dot(*pair) for pair in zip(predicted, targets)]
        if self.objective is None:
            losses = {'user_to_item': -cosines[0] / 2, 'item_to_user': -cosines[1] / 2}
        else:
            final = self(data)
            losses = self.ranking(data, batch, batch.rows(final), final)
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * l2_reg(user, item)
        return losses

    def drop(self, x: Tensor, kind: str) -> Tensor:
        r"""Applies dropout to the targets :obj:`"user"` or :obj:`"item"`, **[B, d]**."""
        return drop_entries(x, self.dropout)

    def drop_edges(self, graph: BipartiteGraph) -> BipartiteGraph:
        r"""The graph of a batch, with edge dropout. All processes draw for all edges."""
        if self.edge_dropout == 0:
            return graph
        rate = graph.to_user_weight.new_empty(())
        if self.edge_dropout is None:
            rate.uniform_(0, 1 - 1e-6)  # Avoids one, which rounding could reach.
        else:
            rate.fill_(self.edge_dropout)

        def drop(weight: Tensor, direction: int) -> Tensor:
            if shard is None:
                noise = torch.rand_like(weight)
            else:
                num_items = graph.to_item.get_sparse_size(1)
                order = self._orders(lambda: shared_order(shard, num_items), shard.edge_index)
                noise = torch.rand_like(weight.new_empty(shard.num_edges))[order[direction]]
            return weight * (noise >= rate) / (1 - rate)

        shard = shard_of(graph.to_item)
        return graph._replace(
            to_user_weight=drop(graph.to_user_weight, 0),
            to_item_weight=drop(graph.to_item_weight, 1),
        )


@full_precision
def mean_dot(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean inner product of rows, or zero without rows."""
    return (x * y).sum() / max(x.size(0), 1)
