from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.contrast import two_view_contrast
from motor_geo.nn.functional.similarity import merge_edges, neighbor_edges, row_sum_norm
from motor_geo.nn.models.learned_graph import ItemGraphs, LearnedGraphRecommender
from motor_geo.typing import RATES, Batch, Embeddings, num_nodes
from motor_geo.utils.cost import warn_of_time
from motor_geo.utils.numbers import positive


class MICRO(LearnedGraphRecommender):
    r"""MICRO from the `"Latent Structure Mining with Contrastive Modality
    Fusion for Multimedia Recommendation" <https://arxiv.org/abs/2111.00678>`_
    paper. It extends :class:`~motor_geo.nn.models.LATTICE` with an item-item
    graph per modality, attention over their outputs, and a contrastive loss
    between each output and their fusion,

    .. math::
        \mathbf{h}^m = \left( (1 - \lambda) \, \mathbf{D}_m^{-1/2} \mathbf{W}^m
        \mathbf{D}_m^{-1/2} + \lambda \mathbf{S}_0^m \right) \mathbf{Q}, \qquad
        \mathbf{h} = \sum_m \mathrm{softmax}_m \left( \mathbf{a}^{\top} \tanh
        (\mathbf{V} \mathbf{h}^m + \mathbf{c}) \right) \mathbf{h}^m, \qquad
        \mathbf{I} = \mathbf{G} + \frac{\mathbf{h}}{\| \mathbf{h} \|} .

    Training builds the graphs in the first batch of every epoch, the only batch
    in which they have a gradient. Evaluation builds them again. The contrastive
    loss covers all items in every batch. Its runtime is quadratic in their
    number, but its memory is bounded, see
    :func:`~motor_geo.nn.functional.contrast.two_view_contrast`.

    ID-free: :math:`\mathbf{Q}` is computed from tokens, as input of all graphs.
    Raw features define the item graphs and are not trained.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting).
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops on the item graphs.
        k: Number of neighbors in learned graphs, including the item itself.
        initial_weight: Weight :math:`\lambda` of the graphs of raw features. With
            one, there are no learned graphs.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`reg_batch_size`.
        reg_batch_size: Divisor of the regularizer, which replaces the size of the
            batch.
        contrast_weight: Weight of the contrastive losses.
        temperature: Temperature of the contrastive losses.
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
        reg_batch_size: int = 1024,
        contrast_weight: float = 0.03,
        temperature: float = 0.5,
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
        positive('temperature', temperature)
        if contrast_weight > 0:
            num_items = num_nodes(data, self.item_type)
            warn_of_time(
                f"The contrast of 'MICRO' compares all pairs of {num_items:,} items in every "
                'batch, which',
                5 * len(self.features) * num_items**2 * channels,  # As fast as 5 products.
                "larger batches need it less often, and 'contrast_weight' 0 leaves it out",
                most=10,
            )
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.attention = nn.Sequential(
            nn.Linear(channels, channels), nn.Tanh(), nn.Linear(channels, 1, bias=False)
        )

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in self.attention:
            if isinstance(lin, nn.Linear):
                lin.reset_parameters()

    def item_graphs(self, data: HeteroData) -> ItemGraphs:
        r"""The item graphs for the current parameters in the order of modalities,
        with a gradient.
        """
        learned = self.learned_graphs(data) if self.initial_weight < 1 else {}
        graphs = []
        for modality in self.features.names:
            edge_index, weight = self.initial_graph(data, modality)
            edge_indices, weights = [edge_index], [self.initial_weight * weight]
            if modality in learned:
                index, value = learned[modality]
                weight = row_sum_norm(index, value, value.sum(dim=1))
                edge_indices.append(neighbor_edges(index))
                weights.append((1 - self.initial_weight) * weight.flatten())
            graphs.append(merge_edges(edge_indices, weights, num_nodes(data, self.item_type)))
        return graphs

    def fuse(self, item: Tensor, graphs: ItemGraphs) -> tuple[list[Tensor], Tensor]:
        r"""Item vectors after every item graph, and their fusion.

        Args:
            item: Item vectors :math:`\mathbf{Q}` from the item encoder.
            graphs: Item graph of every modality.

        Shapes:
            - **input:** item vectors :math:`(N, d)`
            - **output:** item vectors :math:`(N, d)` per modality, fused item
              vectors :math:`(N, d)`
        """
        views = [self.smooth(item, graph) for graph in graphs]
        stacked = torch.stack(views)
        return views, (self.attention(stacked).softmax(dim=0) * stacked).sum(dim=0)

    def forward(self, data: HeteroData) -> Embeddings:
        item = self.encode_items(data)
        _, h = self.fuse(item, self.item_graphs(data))
        return self.combine(data, item, h)

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        item = self.encode_items(data)
        views, h = self.fuse(item, self.epoch_item_graphs(data))
        losses = self.batch_loss(data, self.combine(data, item, h), batch)
        if self.contrast_weight > 0:
            for modality, view in zip(self.features.names, views):
                contrast = two_view_contrast(view, h, self.temperature)
                losses[f'contrast_{modality}'] = self.contrast_weight * contrast
        return losses
