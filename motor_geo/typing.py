r"""Names of node and edge types, and the few tuples that travel between
packages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

USER = 'user'
ITEM = 'item'
RATES: EdgeType = (USER, 'rates', ITEM)
RATED_BY: EdgeType = (ITEM, 'rated_by', USER)


def similar(modality: str, node_type: str = ITEM) -> EdgeType:
    r"""Edge type of the item-item graph of a modality."""
    return (node_type, f'similar_{modality}', node_type)


def modalities(data: HeteroData, model: str | None = None, at_least: int = 0) -> list[str]:
    r"""Names of the item features :obj:`x_<modality>` in sorted order.

    Args:
        data: The graph.
        model: Who asks, for the message.
        at_least: Number of modalities that are needed.

    Raises:
        ValueError: If there are fewer.
    """
    names = sorted(key[2:] for key in data[ITEM].keys() if key.startswith('x_'))
    if len(names) < at_least:
        raise ValueError(
            f"'{model}' needs item features of at least {at_least} "
            f"modalit{'y' if at_least == 1 else 'ies'} (data['item'].x_<modality>), found "
            f'{names or "none"}'
        )
    return names


class Embeddings(NamedTuple):
    r"""Final vectors: the score of a pair is their inner product."""

    user: Tensor  # [M, d]
    item: Tensor  # [N, d]


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
