from __future__ import annotations

from typing import Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from motor_geo.nn.conv import Propagate
from motor_geo.nn.graph import BipartiteGraph, degree_sensitive_pruning, num_kept_edges
from motor_geo.nn.loss import bpr_loss, l2_reg
from motor_geo.nn.models.recommender import Recommender, build_graph, num_nodes
from motor_geo.typing import ITEM, RATES, USER, Batch, Embeddings


class LayerGCN(Recommender):
    r"""LayerGCN from the `"Layer-refined Graph Convolutional Networks for
    Recommendation" <https://arxiv.org/abs/2207.11088>`_ paper: every layer is
    scaled node by node by its similarity to the ego layer,

    .. math::
        \mathbf{Y}^{(l+1)} = \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{X}^{(l)}, \qquad
        \mathbf{x}_v^{(l+1)} = \cos(\mathbf{y}_v^{(l+1)}, \mathbf{x}_v^{(0)})
        \, \mathbf{y}_v^{(l+1)}, \qquad
        \mathbf{X} = \sum_{l=1}^{L} \mathbf{X}^{(l)} ,

    on a training graph that is pruned anew in every epoch. The ego layer is
    left out, so that an item without training edges scores zero.

    ID-free: the item rows of :math:`\mathbf{X}^{(0)}` are computed from
    tokens, in the first layer and in all similarities.

    Args:
        data: The user-item graph.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        rho: Share of training edges removed in every epoch. Ranking uses all
            edges.
        pruning: :obj:`"alternating"` removes edges between nodes of high
            degree first in even epochs (counted from zero) and uniformly in
            odd ones, as published implementations do; :obj:`"degree"` is
            degree-sensitive in every epoch, as in the paper.
        reg_weight: Weight of half the squared rows of
            :math:`\mathbf{X}^{(0)}` in the batch. Like the ranking loss it is
            a sum over the batch.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        data: HeteroData,
        item_encoder: Optional[nn.Module] = None,
        channels: int = 64,
        num_layers: int = 4,
        rho: float = 0.1,
        pruning: str = 'alternating',
        reg_weight: float = 1e-3,
    ):
        super().__init__(data, item_encoder, channels)
        if num_layers < 1:
            raise ValueError(
                f"'num_layers' must be positive, since the ego layer is no part of the output "
                f'(got {num_layers})'
            )
        if not 0 <= rho < 1:
            raise ValueError(f"'rho' must lie in [0, 1) (got {rho})")
        if pruning not in ('alternating', 'degree'):
            raise ValueError(f"'pruning' must be 'alternating' or 'degree' (got '{pruning}')")
        self.num_layers = num_layers
        self.rho = rho
        self.pruning = pruning
        self.reg_weight = reg_weight
        self.conv = Propagate()
        self._pruned: Optional[BipartiteGraph] = None

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        if self.rho == 0:
            return
        edge_index = data[RATES].edge_index
        if self.pruning == 'alternating' and epoch % 2 == 1:
            num_edges = edge_index.size(1)
            order = torch.randperm(num_edges, generator=generator, device=edge_index.device)
            keep = order[: num_kept_edges(num_edges, self.rho)].sort().values
        else:
            size = num_nodes(data, USER), num_nodes(data, ITEM)
            keep = degree_sensitive_pruning(edge_index, *size, self.rho, generator)
        self.prune(data, keep)

    def prune(self, data: HeteroData, keep: Tensor) -> None:
        r"""Makes the training edges :obj:`keep` the graph of :meth:`loss`.

        Shapes:
            - **input:** positions of kept edges :math:`(|\mathcal{E}^{\prime}|)`
        """
        size = num_nodes(data, USER), num_nodes(data, ITEM)
        edge_index = data[RATES].edge_index[:, keep]
        self._pruned = build_graph(edge_index, *size, self.user_embedding.dtype)

    def propagate(self, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        r"""Final vectors from the item vectors of the ego layer, on the given
        user-item graph.

        Shapes:
            - **input:** item vectors :math:`(N, d)`
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        x = Embeddings(self.user_embedding, item)
        ego = Embeddings(*(F.normalize(value, eps=1e-8) for value in x))
        outs = []
        for _ in range(self.num_layers):
            x = Embeddings(
                refine(self.conv(x.item, graph.to_user, graph.to_user_weight), ego.user),
                refine(self.conv(x.user, graph.to_item, graph.to_item_weight), ego.item),
            )
            outs.append(x)
        return Embeddings(*(sum(values[1:], values[0]) for values in zip(*outs)))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(self.encode_items(data), self.graph(data))

    def loss(self, data: HeteroData, batch: Batch) -> Dict[str, Tensor]:
        item = self.encode_items(data)
        graph = self.graph(data) if self._pruned is None else self._pruned
        out = self.propagate(item, graph)
        user, pos, neg = batch.rows(out)
        pos, neg = (user * pos).sum(dim=-1), (user * neg).sum(dim=-1)
        reg = l2_reg(*batch.rows(Embeddings(self.user_embedding, item)))
        return {'bpr': bpr_loss(pos, neg, 'sum'), 'reg': self.reg_weight * reg}

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), '_pruned': None}


def refine(x: Tensor, ego: Tensor) -> Tensor:
    r"""Scales rows by their cosine similarity to rows of unit length; a row of
    zeros stays zero.

    Shapes:
        - **input:** features :math:`(*, F)` and unit rows :math:`(*, F)`
        - **output:** features :math:`(*, F)`
    """
    return (F.normalize(x, eps=1e-8) * ego).sum(dim=-1, keepdim=True) * x
