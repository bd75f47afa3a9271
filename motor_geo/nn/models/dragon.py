from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Hops
from motor_geo.nn.models.dualgnn import DualGNN
from motor_geo.nn.models.item_graph import ItemGraph, modality_weights
from motor_geo.typing import RATES, Embeddings
from motor_geo.utils.lazy import Lazy
from motor_geo.utils.numbers import not_negative


class DRAGON(DualGNN):
    r"""DRAGON from the `"Enhancing Dyadic Relations with Homogeneous Graphs for
    Multimodal Recommendation" <https://arxiv.org/abs/2301.12097>`_ paper. It
    concatenates the modalities of :class:`~motor_geo.nn.models.DualGNN` and adds
    a frozen item graph,

    .. math::
        \mathbf{U}_0 = \Vert_m \, \boldsymbol{\omega}_m \mathbf{X}^m_U, \quad
        \mathbf{I}_0 = \Vert_m \, \mathbf{X}^m_I, \quad
        \mathbf{U} = \mathbf{U}_0 + \mathbf{S}_U \mathbf{U}_0, \quad
        \mathbf{I} = \mathbf{I}_0 + \mathbf{S}^{L_{ii}} \mathbf{I}_0

    with :math:`\mathbf{S} = \sum_m \alpha_m \mathbf{S}^m`. The ranking loss uses
    the logarithm to base two.

    ID-free: The published model has no item embedding. An
    :obj:`item_encoder` adds a block computed from tokens.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`, item
            graphs of :class:`~motor_geo.data.ItemKNN` (binary weighting) and
            the user graph of :class:`~motor_geo.data.UserKNN`.
        item_encoder: Item encoder of an additional block; :obj:`None` uses
            features alone, as published.
        channels: Size :math:`d` of a block.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graph.
        modality_weight: Weight :math:`\alpha_m` of every modality; :obj:`None`
            uses the default of :class:`FREEDOM`.
        reg_weight: Weight of the mean squared entries of preferences in the
            batch and of all :math:`\omega`.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, bd)`, item vectors
          :math:`(N, bd)` with :math:`b` the number of blocks

    Raises:
        ValueError: If the graph has no item features, no item graph or no user
            graph, or an argument is out of range.
    """

    transforms = (
        Lazy('motor_geo.data.ItemKNN', weighting='binary'),
        Lazy('motor_geo.data.UserKNN'),
    )
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        modality_weight: Mapping[str, float] | None = None,
        reg_weight: float = 1e-3,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, num_layers, reg_weight, edge_type=edge_type)
        self.hops = Hops(not_negative('num_item_layers', num_item_layers))
        weights = modality_weights(self.features.names, modality_weight)
        self.item_graphs = ItemGraph(weights, self.item_type)
        self.item_graphs.check(data, 'DRAGON')

    def propagate(self, data: HeteroData, training: bool) -> Embeddings:
        user, item = self.modal_vectors(data)
        return Embeddings((self.user_weight.unsqueeze(-1) * user).flatten(1), item.flatten(1))

    def smooth(self, data: HeteroData, item: Tensor, index: Tensor | None = None) -> Tensor:
        near = self.hops(item, *self.item_graphs(data, item.dtype), index)
        return near + (item if index is None else item.index_select(0, index))
