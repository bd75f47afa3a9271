r"""Items that were not there in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.data.transforms.knn import attach, knn_weights
from motor_geo.typing import ITEM, similar


def add_items(
    data: HeteroData,
    features: Mapping[str, Tensor],
    token_id: Tensor | None = None,
    weighting: str | None = None,
    k: int = 10,
) -> HeteroData:
    r"""A copy of a graph with items appended that have features but no
    interactions.

    Args:
        data: The graph.
        features: Features of the new items for every modality of the graph.
        token_id: Tokens of the new items, if the graph holds tokens.
        weighting: If the graph holds item graphs, how they are weighted; a
            new item is connected to itself and its nearest old items, and
            the neighbours of old items stay as they are.
        k: Number of neighbours, the item itself included.

    Shapes:
        - **input:** features :math:`(n, d_m)`, token ids :math:`(n, T)`

    Raises:
        ValueError: If a modality of the graph is missing, or sizes differ.
    """
    store = data[ITEM]
    names = sorted(key[2:] for key in store.keys() if key.startswith('x_'))
    if not names:
        raise ValueError("The graph has no item features: expected data['item'].x_<modality>")
    missing = [name for name in names if name not in features]
    if missing:
        raise ValueError(f'New items lack features of the modalities {missing}; expected {names}')
    sizes = {name: features[name].size(0) for name in names}
    if len(set(sizes.values())) != 1:
        raise ValueError(f'The modalities of new items differ in their number of rows: {sizes}')
    num_old, num_new = int(store.num_nodes), next(iter(sizes.values()))

    out = HeteroData()
    for node_type in data.node_types:
        out[node_type].num_nodes = data[node_type].num_nodes
    for edge_type in data.edge_types:
        out[edge_type].update(data[edge_type])
    out[ITEM].num_nodes = num_old + num_new
    for name in names:
        old = store[f'x_{name}']
        new = features[name].to(old)
        if new.size(1) != old.size(1):
            raise ValueError(
                f"New items have {new.size(1)} columns of '{name}', the graph has {old.size(1)}"
            )
        out[ITEM][f'x_{name}'] = torch.cat([old, new])
    if 'token_id' in store:
        if token_id is None:
            raise ValueError("The graph holds tokens: expected 'token_id' of the new items")
        if token_id.shape != (num_new, store.token_id.size(1)):
            raise ValueError(
                f"'token_id' of the new items must be [{num_new}, {store.token_id.size(1)}], got "
                f'{list(token_id.shape)}'
            )
        out[ITEM].token_id = torch.cat([store.token_id, token_id.to(store.token_id)])
    for name in names:
        if similar(name) in data.edge_types:
            if weighting is None:
                raise ValueError("The graph holds item graphs: expected their 'weighting'")
            out[similar(name)].update(
                _connect(data, name, features[name].to(store[f'x_{name}']), weighting, k)
            )
    return out


def _connect(data: HeteroData, name: str, new: Tensor, weighting: str, k: int) -> dict[str, Tensor]:
    graph, old = data[similar(name)], data[ITEM][f'x_{name}']
    num_old = old.size(0)
    index, similarity = attach(old, new, k)
    # Row sums of old items: recovered from their own entry, S_ii = 1 / D_i.
    source, target = graph.edge_index
    loop = source == target
    degree = torch.ones(num_old, dtype=graph.edge_weight.dtype, device=source.device)
    degree[target[loop]] = 1 / graph.edge_weight[loop]
    edge_index, weight = knn_weights(index, similarity, weighting, degree.cpu())
    return {
        'edge_index': torch.cat([graph.edge_index, edge_index.to(source)], dim=1),
        'edge_weight': torch.cat([graph.edge_weight, weight.to(graph.edge_weight)]),
    }
