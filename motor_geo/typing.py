r"""Node and edge types, accessors for graphs, and the tuples and data classes
that several packages share.
"""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage, NodeStorage
from torch_geometric.typing import EdgeType

USER = 'user'
ITEM = 'item'
RATES: EdgeType = (USER, 'rates', ITEM)
RATED_BY: EdgeType = (ITEM, 'rated_by', USER)
#: Item attributes that a tokenizer adds.
TOKENS = ('token_id', 'token_near', 'token_distance')
#: Number of interactions from which on training saves memory and time: those of a batch are in the
#: order of users, and both directions of a graph share their memory. Sums then have another order,
#: so results differ by rounding.
MANY_INTERACTIONS = 1_000_000


def similar(modality: str, node_type: str = ITEM) -> EdgeType:
    r"""Edge type of the item-item graph of a modality."""
    return (node_type, f'similar_{modality}', node_type)


def similar_users(node_type: str = USER) -> EdgeType:
    r"""Edge type of the user-user graph of common items."""
    return (node_type, 'similar', node_type)


def node_store(data: HeteroData, node_type: str) -> NodeStorage:
    r"""The store of a node type.

    Raises:
        ValueError: If :obj:`data` is not a :obj:`HeteroData` or has no such
            nodes; the message lists the node types of the graph.
    """
    if not isinstance(data, HeteroData):
        got = 'None' if data is None else f'a {type(data).__name__}'
        raise ValueError(
            f"Expected a HeteroData with nodes '{node_type}', got {got}; for a data set, pass "
            'dataset[0].'
        )
    if node_type not in data.node_types:
        raise ValueError(
            f"The graph has no nodes '{node_type}', it has {listing(data.node_types)}; name the "
            f'right type with node_type or edge_type.'
        )
    return data[node_type]


def num_nodes(data: HeteroData, node_type: str) -> int:
    r"""Number of nodes of a type: :obj:`num_nodes` of the graph, or else the number
    of rows of the features or tokens.

    Raises:
        ValueError: If the graph has no such nodes, or their number is unknown.
    """
    size = num_rows(node_store(data, node_type))
    if size is None:
        raise ValueError(f"The graph has no data['{node_type}'].num_nodes.")
    return size


def num_rows(store: NodeStorage) -> int | None:
    r"""Number of nodes in a store, or :obj:`None` if it is unknown."""
    rows = [key for key in store.keys() if key in ('x', 'token_id') or key.startswith('x_')]
    if rows and 'num_nodes' not in store:
        return len(store[rows[0]])
    size = store.num_nodes if store.can_infer_num_nodes else None
    return None if size is None else int(size)


def edge_types(data: HeteroData) -> list[EdgeType]:
    r"""Edge types that have an :obj:`edge_index`, which may be empty."""
    # A lookup in the store itself would compute the opposite edges, see `set_edges`.
    return [edge_type for edge_type in data.edge_types if 'edge_index' in data[edge_type].keys()]


def find_edges(data: HeteroData, edge_type: EdgeType) -> Tensor:
    r"""The :obj:`edge_index` of an edge type.

    Raises:
        ValueError: If the graph has no such edges; the message lists the edge
            types of the graph.
    """
    if not isinstance(data, HeteroData):
        node_store(data, edge_type[2])
    known = edge_types(data)
    if edge_type not in known:
        raise ValueError(
            f'The graph has no edges {edge_type}, it has {listing(known)}; name the '
            f'interactions with edge_type.'
        )
    return data[edge_type].edge_index


def checked_edges(data: HeteroData, edge_type: EdgeType) -> Tensor:
    r"""The :obj:`edge_index` of an edge type after checking its indices.

    Raises:
        ValueError: If the graph has no such edges, or an index is out of range.
    """
    edge_index = find_edges(data, edge_type)
    for name, index in zip((edge_type[0], edge_type[2]), edge_index):
        size = num_nodes(data, name)
        if index.numel() > 0 and not 0 <= int(index.min()) <= int(index.max()) < size:
            bad = int(index[(index < 0) | (index >= size)][0])
            raise ValueError(
                f"data[{edge_type}].edge_index holds '{name}' {bad}, expected indices from 0 to "
                f'{size - 1}.'
            )
    return edge_index


class LazyEdges:
    r"""Edges that are read when they are needed.

    Args:
        size: Number of edges.
        blocks: A function that yields blocks of all sources (0) or of all targets (1),
            in the order of the edges.
    """

    def __init__(self, size: int, blocks: Callable[[int], Iterable[Tensor]]):
        self.size = size
        self.blocks = blocks

    def flip(self) -> LazyEdges:
        r"""The same edges in the opposite direction."""
        return LazyEdges(self.size, lambda side: self.blocks(1 - side))

    def to(self, device: torch.device | str) -> LazyEdges:
        r"""The same edges on another device."""
        return LazyEdges(self.size, lambda side: (x.to(device) for x in self.blocks(side)))

    def read(self) -> Tensor:
        r"""The edges as a tensor, **[2, E]**."""
        out: Tensor | None = None
        for side in (0, 1):
            start = 0
            for block in self.blocks(side):
                out = block.new_empty(2, self.size) if out is None else out
                out[side, start : start + block.numel()] = block
                start += block.numel()
        return torch.empty(2, 0, dtype=torch.long) if out is None else out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.size} edges)'


class _Attributes(UserDict):
    r"""Attributes of edges that reads :class:`LazyEdges` when they are first asked for.
    Pickles are plain dictionaries.
    """

    def __getitem__(self, key: str) -> Any:
        if isinstance(self.data[key], LazyEdges):
            self.data[key] = self.data[key].read()
        return self.data[key]

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, ({key: self[key] for key in self},)


def set_edges(
    data: HeteroData, edge_index: Tensor | LazyEdges, edge_type: EdgeType = RATES
) -> None:
    r"""Sets the interactions of a graph, and the same edges in the opposite
    direction. These take no memory until they are read.
    """
    _set(data[edge_type], edge_index)
    opposite = edge_index
    if isinstance(edge_index, Tensor):
        opposite = LazyEdges(edge_index.size(1), lambda side: [edge_index[side]])
    _set(data[edge_type[2], RATED_BY[1], edge_type[0]], opposite.flip())


def _set(store: EdgeStorage, edge_index: Tensor | LazyEdges) -> None:
    r"""Sets edges without reading those that the store has."""
    if isinstance(edge_index, Tensor):
        store.edge_index = edge_index
        return
    mapping = _Attributes()
    mapping.data = {**getattr(store._mapping, 'data', store._mapping), 'edge_index': edge_index}
    store._mapping = mapping


def with_edges(
    data: HeteroData, edge_index: Tensor | LazyEdges, edge_type: EdgeType = RATES
) -> HeteroData:
    r"""A shallow copy of a graph with other interactions. Edges in the opposite
    direction are replaced as well if the graph has them.
    """
    out = copy.copy(data)
    if (edge_type[2], RATED_BY[1], edge_type[0]) in data.edge_types:
        set_edges(out, edge_index, edge_type)
    else:
        _set(out[edge_type], edge_index)
    return out


def unread_edges(store: EdgeStorage) -> Any:
    r"""The :obj:`edge_index` of a store as it is, without reading :class:`LazyEdges`."""
    return getattr(store._mapping, 'data', store._mapping).get('edge_index')


def edge_blocks(data: HeteroData, edge_type: EdgeType, side: int) -> Iterable[Tensor]:
    r"""Yields blocks of all sources (0) or of all targets (1) of an edge type, without
    keeping :class:`LazyEdges`.
    """
    edge_index = unread_edges(data[edge_type])
    return [edge_index[side]] if isinstance(edge_index, Tensor) else edge_index.blocks(side)


def listing(names: Sequence[Any]) -> str:
    r"""Up to ten names as text."""
    shown = [repr(name) for name in names[:10]]
    more = [f'{len(names) - 10} more'] if len(names) > 10 else []
    return ', '.join(shown + more) or 'none'


def feature_key(store: NodeStorage, modality: str) -> str:
    r"""The attribute :obj:`x_<modality>`, or plain :obj:`x` for the modality
    :obj:`x`.
    """
    key = f'x_{modality}'
    return 'x' if modality == 'x' and key not in store else key


def feature_modalities(data: HeteroData, node_type: str = ITEM) -> list[str]:
    r"""Sorted names :obj:`m` of the features :obj:`x_m`, with :obj:`"x"` for a plain
    :obj:`x`.
    """
    keys = node_store(data, node_type).keys()
    return sorted({key[2:] or 'x' for key in keys if key == 'x' or key.startswith('x_')})


def feature_table(data: HeteroData, modality: str, node_type: str = ITEM) -> Tensor:
    r"""The features of a modality, **[N, d_m]**.

    Raises:
        ValueError: If the graph has no features of this modality.
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
    r"""Sorted names :obj:`m` of the features :obj:`x_m`, with :obj:`"x"` for a plain
    :obj:`x`.

    Args:
        data: The graph.
        model: Name of the model, used in the error message.
        at_least: Minimum number of modalities.
        node_type: Node type of items.

    Raises:
        ValueError: If the graph has fewer modalities.
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
    r"""Final user and item vectors. The score of a pair is their inner product."""

    user: Tensor  # [M, d]
    item: Tensor  # [N, d]


@dataclass(frozen=True)
class Scores:
    r"""Scores of a model that has no vectors.

    Args:
        function: Maps users **[B]** to their scores of all items **[B, N]**.
        num_users: Number of users :math:`M`.
        num_items: Number of items :math:`N`.
        history: If given, scores all items for users outside the graph. Its
            input is a sparse matrix **[B, N]** of the items that each user
            interacted with.
    """

    function: Callable[[Tensor], Tensor]
    num_users: int
    num_items: int
    history: Callable[[Any], Tensor] | None = None

    def __call__(self, user: Tensor) -> Tensor:
        return self.function(user)


class Rows(NamedTuple):
    r"""Vectors of the users, positive items and negative items of a batch."""

    user: Tensor  # [B, d]
    pos: Tensor  # [B, d]
    neg: Tensor  # [B, d]

    def scores(self) -> tuple[Tensor, Tensor]:
        r"""Scores of the positive and the negative items, **[B]** each."""
        return (self.user * self.pos).sum(dim=-1), (self.user * self.neg).sum(dim=-1)


class Batch(NamedTuple):
    r"""Training triples. Models without negatives ignore :obj:`neg`."""

    user: Tensor  # [B]
    pos: Tensor  # [B]
    neg: Tensor  # [B]

    def rows(self, emb: Embeddings) -> Rows:
        r"""Gathers the vectors of the users, positive items and negative items.

        Uses :meth:`torch.Tensor.index_select`, since the backward pass of
        :obj:`x[index]` is slow on CPUs and sums in an order that changes from call
        to call. One call gathers both kinds of items, since every backward pass
        fills a gradient as large as the item table.
        """
        item = emb.item.index_select(0, torch.cat([self.pos, self.neg]))
        pos, neg = item.split([self.pos.numel(), self.neg.numel()])
        return Rows(emb.user.index_select(0, self.user), pos, neg)

    def scores(self, emb: Embeddings) -> tuple[Tensor, Tensor]:
        r"""Scores of the positive and the negative items, **[B]** each."""
        return self.rows(emb).scores()


@dataclass(frozen=True)
class EvalTargets:
    r"""Held-out interactions in compressed form: the items of
    :obj:`user[i]` are :obj:`item[ptr[i]:ptr[i + 1]]`.

    Args:
        user: Distinct users with at least one held-out item, **[U]**.
        ptr: Row pointer, **[U + 1]**.
        item: Held-out items, grouped by user, **[n]**.
        candidates: If given, evaluation ranks only these items, **[C]** (the
            cold-item protocol). Otherwise, it ranks all items.
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
        r"""Groups user-item pairs by user, in ascending order of users."""
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
        r"""Removes repeated pairs and keeps the order of first occurrences. Returns
        the object itself if no pair is repeated.
        """
        row, item = self.index.cpu().numpy()
        first = np.unique(row * (item.max(initial=0) + 1) + item, return_index=True)[1]
        if first.size == item.size:
            return self
        first.sort()
        count = np.bincount(row[first], minlength=len(self))
        ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(count)])).to(self.ptr)
        return replace(self, ptr=ptr, item=self.item[torch.from_numpy(first).to(self.item.device)])

    def sample(self, num_users: int, seed: int = 0) -> EvalTargets:
        r"""Keeps a random sample of the users, in the same order. Returns the object
        itself if it has no more users.

        Args:
            num_users: Number of users to keep.
            seed: Seed of the sample. (default: :obj:`0`)
        """
        if len(self) <= num_users:
            return self
        generator = torch.Generator().manual_seed(seed)
        keep = torch.randperm(len(self), generator=generator)[:num_users].sort().values
        return self[keep.to(self.ptr.device)]

    def __getitem__(self, index: Tensor) -> EvalTargets:
        r"""Returns the targets of some users, given by their positions in
        :obj:`user`.
        """
        first, count = self.ptr[index], self.count[index]
        end = count.cumsum(0)
        entry = torch.arange(int(count.sum()), device=index.device)
        entry += (first - end + count).repeat_interleave(count)
        ptr = torch.cat([end.new_zeros(1), end])
        return replace(self, user=self.user[index], ptr=ptr, item=self.item[entry])

    def to(self, device: torch.device | str) -> EvalTargets:
        candidates = self.candidates
        return replace(
            self,
            user=self.user.to(device),
            ptr=self.ptr.to(device),
            item=self.item.to(device),
            candidates=None if candidates is None else candidates.to(device),
        )
