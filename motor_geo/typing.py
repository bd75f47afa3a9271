r"""Names of node and edge types, what a graph has under them, and the few
tuples that travel between packages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import NodeStorage
from torch_geometric.typing import EdgeType

USER = 'user'
ITEM = 'item'
RATES: EdgeType = (USER, 'rates', ITEM)
RATED_BY: EdgeType = (ITEM, 'rated_by', USER)
#: What a tokenizer adds to items.
TOKENS = ('token_id', 'token_near', 'token_distance')


def similar(modality: str, node_type: str = ITEM) -> EdgeType:
    r"""Edge type of the item-item graph of a modality."""
    return (node_type, f'similar_{modality}', node_type)


def similar_users(node_type: str = USER) -> EdgeType:
    r"""Edge type of the user-user graph of common items."""
    return (node_type, 'similar', node_type)


def node_store(data: HeteroData, node_type: str) -> NodeStorage:
    r"""The nodes of a type, or an error that says what the graph has."""
    if not isinstance(data, HeteroData):
        got = 'None' if data is None else f'a {type(data).__name__}'
        raise ValueError(
            f"Expected a HeteroData with nodes '{node_type}', got {got}; of a data set, pass "
            'dataset[0].'
        )
    if node_type not in data.node_types:
        raise ValueError(
            f"The graph has no nodes '{node_type}', it has {listing(data.node_types)}; name the "
            f'ones that are meant by node_type or edge_type.'
        )
    return data[node_type]


def num_nodes(data: HeteroData, node_type: str) -> int:
    r"""Number of nodes of a type: what the graph says, or else the rows of
    features or tokens.
    """
    size = num_rows(node_store(data, node_type))
    if size is None:
        raise ValueError(f"The graph has no data['{node_type}'].num_nodes.")
    return size


def num_rows(store: NodeStorage) -> int | None:
    r"""Number of the nodes of a store, if that is known."""
    rows = [key for key in store.keys() if key in ('x', 'token_id') or key.startswith('x_')]
    if rows and 'num_nodes' not in store:
        return len(store[rows[0]])
    size = store.num_nodes if store.can_infer_num_nodes else None
    return None if size is None else int(size)


def edge_types(data: HeteroData) -> list[EdgeType]:
    r"""Types of which there is an :obj:`edge_index`, maybe an empty one."""
    return [edge_type for edge_type in data.edge_types if 'edge_index' in data[edge_type]]


def find_edges(data: HeteroData, edge_type: EdgeType) -> Tensor:
    r"""The edges of a type, or an error that says which types exist."""
    if not isinstance(data, HeteroData):
        node_store(data, edge_type[2])
    known = edge_types(data)
    if edge_type not in known:
        raise ValueError(
            f'The graph has no edges {edge_type}, it has {listing(known)}; name the '
            f'interactions by edge_type.'
        )
    return data[edge_type].edge_index


def with_edges(data: HeteroData, edge_index: Tensor, edge_type: EdgeType = RATES) -> HeteroData:
    r"""A shallow copy of a graph with other interactions."""
    out = copy.copy(data)
    out[edge_type].edge_index = edge_index
    back = edge_type[2], RATED_BY[1], edge_type[0]
    if back in data.edge_types:
        out[back].edge_index = edge_index.flip(0)
    return out


def listing(names: Sequence[Any]) -> str:
    r"""Up to ten names in words."""
    shown = [repr(name) for name in names[:10]]
    more = [f'{len(names) - 10} more'] if len(names) > 10 else []
    return ', '.join(shown + more) or 'none'


def feature_key(store: NodeStorage, modality: str) -> str:
    r"""The attribute :obj:`x_<modality>`; plain :obj:`x` is the modality
    :obj:`x`.
    """
    key = f'x_{modality}'
    return 'x' if modality == 'x' and key not in store else key


def feature_modalities(data: HeteroData, node_type: str = ITEM) -> list[str]:
    r"""Names :obj:`m` of the features :obj:`x_m`, sorted; :obj:`"x"` if there
    is a plain :obj:`x`.
    """
    keys = node_store(data, node_type).keys()
    return sorted({key[2:] or 'x' for key in keys if key == 'x' or key.startswith('x_')})


def feature_table(data: HeteroData, modality: str, node_type: str = ITEM) -> Tensor:
    r"""The features of a modality, **[N, d_m]**.

    Raises:
        ValueError: If the graph has none.
    """
    store = node_store(data, node_type)
    key = feature_key(store, modality)
    if key not in store:
        raise ValueError(
            f"data['{node_type}'].{key} is missing: expected features of the modality "
            f"'{modality}', found those of {feature_modalities(data, node_type)}."
        )
    return store[key]


def modalities(
    data: HeteroData, model: str | None = None, at_least: int = 0, node_type: str = ITEM
) -> list[str]:
    r"""Names :obj:`m` of the features :obj:`x_m` in sorted order, :obj:`"x"`
    if there is a plain :obj:`x`.

    Args:
        data: The graph.
        model: Who asks, for the message.
        at_least: Number of modalities that are needed.
        node_type: Node type of items.

    Raises:
        ValueError: If there are fewer.
    """
    names = feature_modalities(data, node_type)
    if len(names) < at_least:
        raise ValueError(
            f"'{model}' needs item features of at least {at_least} "
            f"modalit{'y' if at_least == 1 else 'ies'} (data['{node_type}'].x_<modality>), found "
            f'{names or "none"}'
        )
    return names


class Embeddings(NamedTuple):
    r"""Final vectors: the score of a pair is their inner product."""

    user: Tensor  # [M, d]
    item: Tensor  # [N, d]


@dataclass(frozen=True)
class Scores:
    r"""Scores of what has no vectors: a function from users **[B]** to their
    scores of all items **[B, N]**, and the numbers of both. :obj:`history`,
    if there is one, scores for people whom the graph does not know, by what
    they used: a sparse matrix **[B, N]**.
    """

    function: Callable[[Tensor], Tensor]
    num_users: int
    num_items: int
    history: Callable[[Any], Tensor] | None = None

    def __call__(self, user: Tensor) -> Tensor:
        return self.function(user)


class Rows(NamedTuple):
    r"""Vectors of the users, positive and negative items of a batch."""

    user: Tensor  # [B, d]
    pos: Tensor  # [B, d]
    neg: Tensor  # [B, d]

    def scores(self) -> tuple[Tensor, Tensor]:
        r"""Scores of the positive and of the negative items, **[B]** each."""
        return (self.user * self.pos).sum(dim=-1), (self.user * self.neg).sum(dim=-1)


class Batch(NamedTuple):
    r"""Training triples; models without negatives ignore :obj:`neg`."""

    user: Tensor  # [B]
    pos: Tensor  # [B]
    neg: Tensor  # [B]

    def rows(self, emb: Embeddings) -> Rows:
        r"""Rows of the users, positive and negative items of the batch.

        They are taken by :meth:`torch.Tensor.index_select`: the backward pass
        of :obj:`x[index]` is slow on CPUs and sums in an order that changes
        from call to call. Both kinds of items are taken at once, since every
        backward pass fills a gradient of the whole size.
        """
        item = emb.item.index_select(0, torch.cat([self.pos, self.neg]))
        pos, neg = item.split([self.pos.numel(), self.neg.numel()])
        return Rows(emb.user.index_select(0, self.user), pos, neg)

    def scores(self, emb: Embeddings) -> tuple[Tensor, Tensor]:
        r"""Scores of the positive and of the negative items, **[B]** each."""
        return self.rows(emb).scores()


@dataclass(frozen=True)
class EvalTargets:
    r"""Held-out interactions in compressed form: the items of
    :obj:`user[i]` are :obj:`item[ptr[i]:ptr[i + 1]]`.

    Args:
        user: Distinct users with at least one held-out item, **[U]**.
        ptr: Row pointer, **[U + 1]**.
        item: Held-out items, grouped by user, **[n]**.
        candidates: If given, only these items are ranked (the cold-item
            protocol), **[C]**; otherwise all items are.
    """

    user: Tensor
    ptr: Tensor
    item: Tensor
    candidates: Tensor | None = None

    @classmethod
    def from_pairs(
        cls,
        user: np.ndarray,
        item: np.ndarray,
        candidates: np.ndarray | None = None,
    ) -> EvalTargets:
        r"""Groups user-item pairs by user (ascending user index)."""
        order = np.argsort(user, kind='stable')
        users, counts = np.unique(user, return_counts=True)
        ptr = np.concatenate([[0], np.cumsum(counts)])
        as_tensor = torch.from_numpy
        return cls(
            as_tensor(users.astype(np.int64)),
            as_tensor(ptr.astype(np.int64)),
            as_tensor(np.asarray(item)[order].astype(np.int64)),
            None if candidates is None else as_tensor(candidates.astype(np.int64)),
        )

    def __len__(self) -> int:
        return self.user.numel()

    @property
    def count(self) -> Tensor:
        r"""Number of held-out items per user, **[U]**."""
        return self.ptr.diff()

    @property
    def index(self) -> Tensor:
        r"""Pairs (position in :obj:`user`, item), **[2, n]**."""
        row = torch.arange(len(self), device=self.ptr.device)
        return torch.stack([row.repeat_interleave(self.count), self.item])

    def distinct(self) -> EvalTargets:
        r"""Every pair once, in the order of its first occurrence; the object
        itself if none occurs twice.
        """
        row, item = self.index.cpu().numpy()
        first = np.unique(row * (item.max(initial=0) + 1) + item, return_index=True)[1]
        if first.size == item.size:
            return self
        first.sort()
        count = np.bincount(row[first], minlength=len(self))
        ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(count)])).to(self.ptr)
        return replace(self, ptr=ptr, item=self.item[torch.from_numpy(first).to(self.item.device)])

    def to(self, device: torch.device | str) -> EvalTargets:
        candidates = self.candidates
        return replace(
            self,
            user=self.user.to(device),
            ptr=self.ptr.to(device),
            item=self.item.to(device),
            candidates=None if candidates is None else candidates.to(device),
        )
