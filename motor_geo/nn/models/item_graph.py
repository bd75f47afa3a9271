from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage
from torch_geometric.utils import coalesce

from motor_geo.nn.graph import sorted_edge_index
from motor_geo.nn.memo import Memo
from motor_geo.typing import ITEM, num_nodes, similar
from motor_geo.utils.numbers import not_negative, positive


def modality_weights(
    modalities: list[str], weight: Mapping[str, float] | None = None
) -> dict[str, float]:
    r"""Weights of the item graphs of all modalities. By default, images have
    weight 0.1 and all other modalities share the rest equally. Without images,
    or with images only, weights are equal.

    Args:
        modalities: Names of the modalities.
        weight: Weight of every modality; :obj:`None` uses the default.

    Raises:
        ValueError: If the names in :obj:`weight` differ from
            :obj:`modalities`, a weight is negative or not finite, or all are zero.
    """
    if weight is not None:
        if set(weight) != set(modalities):
            raise ValueError(
                f"'modality_weight' must name the modalities {modalities} (got {sorted(weight)})"
            )
        out = {m: not_negative(f'modality_weight[{m}]', float(weight[m])) for m in modalities}
        positive('sum of modality_weight', sum(out.values()))
        return out
    others = [m for m in modalities if m != 'image']
    if len(others) in (0, len(modalities)):
        return {m: 1 / len(modalities) for m in modalities}
    return {m: 0.1 if m == 'image' else 0.9 / len(others) for m in modalities}


def item_graph(data: HeteroData, modality: str, model: str, node_type: str = ITEM) -> EdgeStorage:
    r"""The item-item graph of a modality.

    Raises:
        ValueError: If the graph is missing.
    """
    edge_type = similar(modality, node_type)
    if edge_type not in data.edge_types:
        how = '' if node_type == ITEM else f" (node_type='{node_type}')"
        raise ValueError(
            f"'{model}' needs the item graph {edge_type}: apply 'ItemKNN'{how} to the data first"
        )
    return data[edge_type]


class ItemGraph:
    r"""The weighted sum of the item-item graphs of a :obj:`HeteroData`,
    :math:`\mathbf{S} = \sum_m \alpha_m \mathbf{S}^m`. The result is cached as
    long as the graphs stay the same.

    Args:
        weights: Weight :math:`\alpha_m` of every modality.
        node_type: Node type of items.
        reduce: :obj:`"sum"` adds the weights of an edge that occurs in several
            graphs, :obj:`"max"` uses the largest one.

    Raises:
        ValueError: If a graph is missing.
    """

    def __init__(self, weights: Mapping[str, float], node_type: str = ITEM, reduce: str = 'sum'):
        self.weights = dict(weights)
        self.node_type = node_type
        self.reduce = reduce
        self._graphs = Memo()

    def check(self, data: HeteroData, model: str) -> None:
        r"""Raises a :class:`ValueError` if a graph is missing."""
        for modality in self.weights:
            item_graph(data, modality, model, self.node_type)

    def __call__(self, data: HeteroData, dtype: torch.dtype) -> tuple[EdgeIndex, Tensor]:
        edge_types = [similar(modality, self.node_type) for modality in self.weights]
        for edge_type in edge_types:
            if edge_type not in data.edge_types:  # Reading it would create an empty one.
                raise ValueError(
                    f"The graph has no {edge_type}; apply the 'transforms' of the model first"
                )
        stores = [data[edge_type] for edge_type in edge_types]
        edges, weights = [s.edge_index for s in stores], [s.edge_weight for s in stores]
        num_items = num_nodes(data, self.node_type)

        def build() -> tuple[EdgeIndex, Tensor]:
            alpha = self.weights.values()
            edge_index, weight = coalesce(
                torch.cat(edges, dim=1),
                torch.cat([a * weight for a, weight in zip(alpha, weights)]).to(dtype),
                num_items,
                reduce=self.reduce,
                sort_by_row=False,
            )
            return sorted_edge_index(edge_index, num_items, num_items)[0], weight

        return self._graphs(build, edges, weights, dtype, num_items)
