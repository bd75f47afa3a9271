from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.similarity import merge_edges, neighbor_edges, row_sum_norm
from motor_geo.nn.models.learned_graph import ItemGraphs, LearnedGraphRecommender
from motor_geo.typing import RATES, Batch, Embeddings, num_nodes


class LATTICE(LearnedGraphRecommender):
    r"""LATTICE from the `"Mining Latent Structures for Multimedia
    Recommendation" <https://arxiv.org/abs/2104.09036>`_ paper. It combines
    propagation on the training graph with self-loops and an item-item graph
    learned from projected features
    :math:`\mathbf{W}_m \mathbf{x}^m + \mathbf{b}_m`,

    .. math::
        \mathbf{I} = \mathbf{G} + \frac{\mathbf{S} \mathbf{Q}}
        {\| \mathbf{S} \mathbf{Q} \|}, \qquad
        \mathbf{S} = (1 - \lambda) \, \mathbf{D}^{-1/2} \Big( \sum_m \beta_m
        \mathbf{W}^m \Big) \mathbf{D}^{-1/2} + \lambda \sum_m \beta_m
        \mathbf{S}_0^m ,

    where :math:`\beta` is a softmax over modalities, :math:`\mathbf{W}^m` holds
    the :math:`k` largest cosine similarities of every item, and
    :math:`\mathbf{D}` holds the row sums of their mixture. Training builds the
    graph in the first batch of every epoch, the only batch in which it has a
    gradient. Evaluation builds it again. Memory never holds a matrix over all
    pairs of items.

    ID-free: :math:`\mathbf{Q}` is computed from tokens, as input of both graphs.
    Raw features define the item graph and are not trained.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting).
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops on the item graph.
        k: Number of neighbors in the learned graph, including the item itself.
        initial_weight: Weight :math:`\lambda` of the graphs of raw features. With
            one, there is no learned graph.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`reg_batch_size`.
        reg_batch_size: Divisor of the regularizer, which replaces the size of the
            batch.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    needs_all_users = 'similarities of all pairs of items'

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        k: int = 10,
        initial_weight: float = 0.9,
        reg_weight: float = 1e-5,
        reg_batch_size: int = 2048,
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(
            data,
            item_encoder,
            channels,
            num_layers,
            num_item_layers,
            k,
            initial_weight,
            reg_weight,
            reg_batch_size,
            train_features,
            edge_type,
        )
        self.modal_logits = nn.Parameter(torch.full((len(self.features),), 0.5))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.modal_logits, 0.5)

    def item_graphs(self, data: HeteroData) -> ItemGraphs:
        r"""The item graph for the current parameters, with a gradient."""
        beta = self.modal_logits.softmax(dim=0).unbind()
        edge_indices, weights = [], []
        for b, modality in zip(beta, self.features.names):
            edge_index, weight = self.initial_graph(data, modality)
            edge_indices.append(edge_index)
            weights.append(self.initial_weight * b * weight)
        if self.initial_weight < 1:
            learned = self.learned_graphs(data).values()
            row_sum = torch.stack([b * v.sum(dim=1) for b, (_, v) in zip(beta, learned)]).sum(dim=0)
            for b, (index, value) in zip(beta, learned):
                value = row_sum_norm(index, (1 - self.initial_weight) * b * value, row_sum)
                edge_indices.append(neighbor_edges(index))
                weights.append(value.flatten())
        return [merge_edges(edge_indices, weights, num_nodes(data, self.item_type))]

    def propagate(self, data: HeteroData, graphs: ItemGraphs) -> Embeddings:
        r"""Final vectors for the given item graph.

        Args:
            data: The user-item graph.
            graphs: List that holds the item graph.

        Shapes:
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        item = self.encode_items(data)
        return self.combine(data, item, self.smooth(item, graphs[0]))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(data, self.item_graphs(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        return self.batch_loss(data, self.propagate(data, self.epoch_item_graphs(data)), batch)
