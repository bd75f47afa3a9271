r"""Adds items to a graph after training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from motor_geo.typing import ITEM, TOKENS, similar
from motor_geo.utils.lazy import Lazy, check_graph
from motor_geo.utils.missing import fill_missing


def add_items(
    data: HeteroData,
    features: Mapping[str, Tensor],
    token_id: Tensor | Mapping[str, Tensor] | None = None,
    transforms: Iterable[BaseTransform] = (),
    attributes: Mapping[str, Tensor] | None = None,
) -> HeteroData:
    r"""Returns a copy of a graph with new items that have features but no
    interactions.

    Args:
        data: The graph.
        features: Features of the new items, for every modality of the graph.
        token_id: Tokens of the new items, required if the graph has tokens. If
            the graph also has their nearest codes, a mapping from the names in
            the graph to tensors.
        transforms: The transforms that created the item graphs in
            :obj:`data`. A transform with a method :obj:`extend(old, new)`, such
            as :class:`~motor_geo.data.ItemKNN`, adds the new items to its item
            graph. Any other transform is applied to the whole graph again.
        attributes: Other tensors of the new items that the graph has of every item, by
            name, such as :obj:`category`. New items have all modalities unless
            :obj:`mask_<modality>` tells otherwise.

    Shapes:
        - **input:** features :math:`(n, d_m)`, token ids :math:`(n, T)`
        - **output:** a graph with :math:`N + n` items

    Raises:
        ValueError: If features of a modality, tokens, other attributes or transforms
            are missing, or sizes differ.
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
        if node_type != ITEM:
            out[node_type].update(data[node_type])
    for edge_type in data.edge_types:
        out[edge_type].update(data[edge_type])
    out[ITEM].num_nodes = num_old + num_new
    for name in names:
        old, mask = store[f'x_{name}'], store.get(f'mask_{name}')
        filled = (
            None if mask is None else fill_missing(old, torch.as_tensor(mask, device=old.device))
        )
        old = old if filled is None else filled
        new = features[name].to(old.device, torch.promote_types(old.dtype, torch.float))
        if new.size(1) != old.size(1):
            raise ValueError(
                f"New items have {new.size(1)} columns of '{name}', but the graph has {old.size(1)}"
            )
        out[ITEM][f'x_{name}'] = torch.cat([old, new])
    tokens = token_id if isinstance(token_id, Mapping) else {'token_id': token_id}
    for name in TOKENS:
        if name not in store:
            continue
        old, found = store[name], tokens.get(name)
        if found is None:
            raise ValueError(f"The graph holds tokens: expected '{name}' of the new items")
        if found.shape != (num_new, *old.shape[1:]):
            raise ValueError(
                f"'{name}' of the new items must be {[num_new, *old.shape[1:]]}, got "
                f'{list(found.shape)}'
            )
        out[ITEM][name] = torch.cat([old, found.to(old)])
    missed = _add_attributes(out, data, dict(attributes or {}), num_new)
    transforms = [t.build() if isinstance(t, Lazy) else t for t in transforms]
    if not transforms and any(similar(name) in data.edge_types for name in names):
        raise ValueError("The graph has item graphs: expected the 'transforms' that created them")
    for transform in transforms:
        extend = getattr(transform, 'extend', None)
        joined = transform(out) if extend is None else extend(data, out)
        out = check_graph(joined, type(transform).__name__)
    missed = [name for name in missed if name not in out[ITEM]]  # Transforms may have added them.
    if missed:
        raise ValueError(
            f'The graph holds {missed} of every item: expected those of the new items in '
            "'attributes'"
        )
    return out


def _add_attributes(
    out: HeteroData, data: HeteroData, attributes: dict[str, Tensor], num_new: int
) -> list[str]:
    r"""Adds the attributes of items that are neither features nor tokens, and returns
    the names of those that new items lack.
    """
    store, missed = data[ITEM], []
    for name, old in store.items():
        if name in out[ITEM]:
            continue
        if not store.is_node_attr(name):
            out[ITEM][name] = old
            continue
        old, new = torch.as_tensor(old), attributes.pop(name, None)
        if new is None and name.startswith('mask_'):
            new = old.new_ones(num_new)
        if new is None:
            missed.append(name)
            continue
        if new.shape != (num_new, *old.shape[1:]):
            raise ValueError(
                f"'{name}' of the new items must be {[num_new, *old.shape[1:]]}, got "
                f'{list(new.shape)}'
            )
        out[ITEM][name] = torch.cat([old, new.to(old)])
    if attributes:
        raise ValueError(f"'attributes' holds {sorted(attributes)}, which the graph has of no item")
    return missed
