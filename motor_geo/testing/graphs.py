r"""Small graphs for tests: a few hundred users and items with features and
tokens.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping

import torch
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.data import OPQTokenizer, SyntheticClusters
from motor_geo.data.transforms.add_items import add_items
from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.models import Recommender
from motor_geo.typing import ITEM, RATES, USER, Batch, modalities
from motor_geo.typing import with_edges as with_edges
from motor_geo.utils.lazy import check_graph, declared_transforms

NUM_USERS, NUM_ITEMS = 211, 173  # Primes that differ from all other sizes.
NUM_TOKENS, CODEBOOK_SIZE = 2, 16
#: Item representations under test, named as in the option ``--items``.
ITEMS = ('id', 'specific', 'agnostic', 'mean', 'linear', 'features')


@functools.cache
def _small_graph(seed: int) -> HeteroData:
    dataset = SyntheticClusters(NUM_USERS, NUM_ITEMS, 1500, seed=seed)
    return OPQTokenizer(NUM_TOKENS, CODEBOOK_SIZE, cache=False, verbose=False)(dataset.data)


def small_graph(seed: int = 0) -> HeteroData:
    r"""A graph of 211 users and 173 items with features :obj:`x_image` and
    :obj:`x_text`, and two tokens per modality from codebooks of size 16.
    """
    return copy.copy(_small_graph(seed))


def with_names(data: HeteroData, names: Mapping[str, str]) -> HeteroData:
    r"""A copy of a graph with renamed modalities. Tokens are not reordered, so
    the new names must sort in the same order as the old ones.
    """
    data = copy.copy(data)
    for old, new in names.items():
        data[ITEM][f'x_{new}'] = data[ITEM].pop(f'x_{old}')
        if f'mask_{old}' in data[ITEM]:
            data[ITEM][f'mask_{new}'] = data[ITEM].pop(f'mask_{old}')
    return data


def with_types(data: HeteroData, edge_type: EdgeType) -> HeteroData:
    r"""A copy of a graph that uses the type names of :obj:`edge_type` for users,
    training edges and items.
    """
    types = {USER: edge_type[0], ITEM: edge_type[2]}
    out = HeteroData()
    for node_type in data.node_types:
        out[types.get(node_type, node_type)].update(data[node_type])
    for source, relation, target in data.edge_types:
        name = (types.get(source, source), relation, types.get(target, target))
        store = data[source, relation, target]
        out[edge_type if (source, relation, target) == RATES else name].update(store)
    return out


def prepare(backbone: type[Recommender], data: HeteroData) -> HeteroData:
    r"""A copy of a graph with all :obj:`transforms` of a backbone applied."""
    data = copy.copy(data)
    for position, transform in enumerate(declared_transforms(backbone)):
        data = check_graph(transform(data), f'transforms[{position}] of {backbone.__name__}')
    return data


def new_items(backbone: type[Recommender], data: HeteroData, num_items: int = 4) -> HeteroData:
    r"""A copy of a prepared graph with additional items that have no
    interactions.
    """
    generator = torch.Generator().manual_seed(0)
    features = {
        m: torch.randn(num_items, data[ITEM][f'x_{m}'].size(1), generator=generator)
        for m in modalities(data)
    }
    width = data[ITEM].token_id.size(1)
    token_id = torch.randint(CODEBOOK_SIZE, (num_items, width), generator=generator)
    return add_items(data, features, token_id, transforms=declared_transforms(backbone))


def item_encoder(items: str, data: HeteroData, channels: int) -> nn.Module | None:
    r"""The item encoder of :obj:`--items` for a small graph; :obj:`None` for
    :obj:`"id"`.
    """
    names = modalities(data)
    if items == 'id':
        return None
    if items == 'features':
        return FeatureProjection({m: data[ITEM][f'x_{m}'].size(1) for m in names}, channels)
    return TokenCrossEncoder(dict.fromkeys(names, NUM_TOKENS), CODEBOOK_SIZE, channels, mode=items)


def random_batch(data: HeteroData, size: int = 64, seed: int = 0) -> Batch:
    r"""A batch of random training edges, with negatives drawn from all items."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = data[RATES].edge_index
    edge = torch.randint(edge_index.size(1), (size,), generator=generator)
    neg = torch.randint(int(data[ITEM].num_nodes), (size,), generator=generator)
    return Batch(edge_index[0, edge], edge_index[1, edge], neg)
