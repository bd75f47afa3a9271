r"""Base class of all datasets: a graph of the training interactions, with the
held-out interactions kept outside of it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.data.datasets.split import NEEDS
from motor_geo.typing import ITEM, RATES, USER, EvalTargets, LazyEdges, set_edges, unread_edges
from motor_geo.utils.arrays import check_finite
from motor_geo.utils.cache import Single, fingerprint

Transform = Callable[[HeteroData], HeteroData]
SPLIT_NAMES = ('train', 'val', 'test')


class Training(NamedTuple):
    r"""Training interactions that are read when they are needed."""

    edges: LazyEdges
    users: np.ndarray  # Number of those of every user, [M]
    items: np.ndarray  # Number of those of every item, [N]


def unique_pairs(
    user: np.ndarray, item: np.ndarray, priority: np.ndarray | None = None
) -> np.ndarray:
    r"""Returns the rows of the distinct pairs, sorted by user and item. Of
    equal pairs, the row with the lowest :obj:`priority` stays, and the first
    such row if there is a tie.

    Args:
        user: User of each row, **[E]**.
        item: Item of each row, **[E]**.
        priority: Priority of each row, **[E]**. (default: the order of rows)
    """
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1)
    pair += item
    if (pair[1:] > pair[:-1]).all():  # Already sorted and distinct, as files usually are.
        return np.arange(len(pair))
    order = np.argsort(pair, kind='stable') if priority is None else np.lexsort((priority, pair))
    pair = pair[order]
    new = np.ones(len(order), bool)
    new[1:] = pair[1:] != pair[:-1]
    return order[new]


def check_splits(
    name: str, counts: np.ndarray, given: np.ndarray, rule: str | None, most: int
) -> None:
    r"""Checks that no split is empty. If the source specified the splits,
    validation may be missing, and then test as well, with a warning.

    Args:
        name: Name of the dataset.
        counts: Number of interactions of each split, **[3]**.
        given: The same with users who have no training interaction, **[3]**.
        rule: Name of the split rule, or :obj:`None` if the source specified the
            splits.
        most: Number of interactions of the most active user.

    Raises:
        ValueError: If a split is empty.
    """
    for split, count in enumerate(counts):
        label = SPLIT_NAMES[split]
        if count:
            continue
        if rule is not None:
            raise ValueError(
                f"'{name}': the split '{rule}' leaves no interaction for {label}: "
                f'{NEEDS.get(rule, "it needs more interactions")}, and the most active user '
                f'has {most}.'
            )
        if split == 0 or given[split] or (split == 2 and given[1]):
            raise ValueError(
                f"'{name}': split '{label}' has no interactions (label {split})"
                f'{" of users with a training interaction" if split else ""}; '
                f'expected at least one.'
            )
        what = {
            1: 'validation (label 1), so there is no early stopping and no way to compare options',
            2: 'test (label 2), so no test metric is computed',
        }[split]
        warnings.warn(f"'{name}': no interaction is for {what}.", stacklevel=5)


def _as_feature(name: str, x: np.ndarray | Tensor, num_items: int) -> Tensor:
    r"""Returns a float32 matrix with one row per item. Does not copy float32
    input. A memory-mapped float16 file stays as it is.
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    if x.ndim != 2 or x.shape[0] != num_items:
        raise ValueError(
            f"Features '{name}': expected {num_items} rows (one per item), got {list(x.shape)}."
        )
    on_disk = isinstance(x, np.memmap) and x.dtype == np.float16
    if x.dtype != np.float32 and not on_disk:
        with np.errstate(over='ignore'):
            x = x.astype(np.float32)
        check_finite(x, f"Features '{name}' as float32")
    with warnings.catch_warnings():  # Memory-mapped files are read-only.
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        return torch.from_numpy(x)


def _fill_missing(name: str, x: Tensor, mask: Tensor) -> Tensor:
    r"""Fills the rows of items without a modality with the mean of the
    others.
    """
    if mask.shape != x.shape[:1] or mask.dtype != torch.bool:
        raise ValueError(
            f"Mask '{name}': expected booleans [{x.size(0)}], got {mask.dtype} {list(mask.shape)}."
        )
    if not mask.any():
        raise ValueError(f"Mask '{name}': expected at least one item with the modality, got none.")
    if mask.all():
        return x
    mean = x[mask].mean(dim=0, dtype=torch.float64).float()
    return torch.where(mask[:, None], x, mean)


class RecommendationDataset(torch.utils.data.Dataset):
    r"""Base class of datasets with a single graph, :obj:`dataset[0]`.

    The :class:`~torch_geometric.data.HeteroData` object contains :obj:`'user'`
    and :obj:`'item'` nodes, the item features :obj:`x_<modality>`, and the
    **training** interactions in both directions, sorted by user and item.
    Held-out interactions are available through :meth:`targets` only.

    Subclasses call :obj:`_build` in their constructor.

    Args:
        transform: A function that transforms the graph on every access
            (:obj:`dataset[0]`).
        pre_transform: A function that transforms the graph once.
    """

    name: str
    data: HeteroData
    user_ids: np.ndarray  # Raw id of each user, [M]
    item_ids: np.ndarray  # Raw id of each item, [N]
    item_titles: np.ndarray | None = None  # Titles of items, if known, [N]
    item_images: np.ndarray | None = None  # Images of items, if known, uint8 [N, height, width, 3]
    known_users: Tensor  # Whether a user has an interaction in any split, [M]
    dropped: Tensor  # Held-out interactions of users without a training interaction, [2, n]
    known_items: Tensor  # Whether an item has an interaction or features, or is listed, [N]
    first_time: Tensor | None = None  # Time of the first training interaction, if read, [N]
    transform: Transform | None = None
    pre_transform: Transform | None = None
    _training: Training | None = None

    def __init__(
        self, transform: Transform | None = None, pre_transform: Transform | None = None
    ) -> None:
        self.transform, self.pre_transform = transform, pre_transform

    def _build(
        self,
        name: str,
        user: np.ndarray,
        item: np.ndarray,
        label: np.ndarray,
        features: Mapping[str, np.ndarray | Tensor],
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        candidates: Mapping[str, np.ndarray] | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
        locate: Callable[[int], str] = 'row {}'.format,
        rule: str | None = None,
        known_users: np.ndarray | None = None,
        known_items: np.ndarray | None = None,
        training: Training | None = None,
    ) -> None:
        r"""Builds the graph and the targets.

        If a pair occurs more than once, it stays only in the first split that
        has it (training before validation before test). Held-out interactions
        of users without a training interaction are dropped. Both cases give a
        warning.

        Args:
            name: Name of the dataset.
            user: User index of each interaction, **[E]**.
            item: Item index of each interaction, **[E]**.
            label: 0 (training), 1 (validation) or 2 (test), **[E]**.
            features: The feature matrix of each modality, **[N, d]**.
            user_ids: Raw ids of the users, **[M]**.
            item_ids: Raw ids of the items, **[N]**.
            candidates: Items to rank for :obj:`'val'` and :obj:`'test'`.
                (default: all)
            masks: Which items have each modality, **[N]**. The other items get
                the mean of its features.
            locate: A function that returns how messages refer to a row of the
                source.
            rule: Name of the split rule, or :obj:`None` if the source
                specified the splits. Specified splits may lack validation, or
                validation and test, with a warning.
            known_users: Which users exist even if no row has them, **[M]**.
            known_items: Which items exist even if no row has them, **[N]**.
            training: Distinct training interactions that are not among the rows.

        Raises:
            ValueError: If a split is empty, a label is not 0, 1 or 2, an
                index is out of range, or a matrix has the wrong shape.
        """
        self.name, self.user_ids, self.item_ids = name, user_ids, item_ids
        for kind, index, size in (
            ('user', user, len(user_ids)),
            ('item', item, len(item_ids)),
            ('label', label, 3),
        ):
            if ((index < 0) | (index >= size)).any():
                row = int(((index < 0) | (index >= size)).argmax())
                raise ValueError(
                    f"{locate(row)}: expected '{kind}' from 0 to {size - 1}, got {index[row]}."
                )

        keep = unique_pairs(user, item, label)
        if len(keep) < len(user):
            repeated = np.setdiff1d(np.arange(len(user)), keep, assume_unique=True)
            warnings.warn(
                f"'{name}': removed {len(repeated)} duplicate interactions (each pair stays in the "
                f'first of train, val and test), among them {locate(int(repeated[0]))}.',
                stacklevel=3,
            )
        if len(keep) < len(user) or (keep[1:] < keep[:-1]).any():  # Otherwise saves a copy.
            user, item, label = user[keep], item[keep], label[keep]
        del keep
        self._find_known(user, item, features, masks, known_users, known_items)
        given = np.bincount(label, minlength=3)
        count = np.bincount(user[label == 0], minlength=len(user_ids))
        if training is not None:
            count = training.users
            given[0] = training.edges.size
        rows = count[user] > 0
        self.dropped = torch.from_numpy(np.stack([user[~rows], item[~rows]]).astype(np.int64))
        if not rows.all():
            warnings.warn(
                f"'{name}': dropped {np.sum(~rows)} held-out interactions of "
                f'{len(np.unique(user[~rows]))} users without a training interaction.',
                stacklevel=3,
            )
            user, item, label = user[rows], item[rows], label[rows]
        counts = np.bincount(label, minlength=3)
        counts[0] = given[0]
        if rule is None or not counts.all():
            count = count + np.bincount(user[label > 0], minlength=len(user_ids))
            most = int(count.max(initial=0))
            check_splits(name, counts, given, rule, most)

        self.data = data = HeteroData()
        data[USER].num_nodes = len(user_ids)
        data[ITEM].num_nodes = len(item_ids)
        for modality in sorted(features):
            x = _as_feature(modality, features[modality], len(item_ids))
            if masks and modality in masks:
                mask = torch.from_numpy(np.array(masks[modality]))
                x = _fill_missing(modality, x, mask)
                data[ITEM][f'mask_{modality}'] = mask
            data[ITEM][f'x_{modality}'] = x
        if training is None:
            train = label == 0
            pairs = np.empty((2, np.count_nonzero(train)), np.int64)
            for row, index in zip(pairs, (user, item)):
                row[:] = index[train]
            set_edges(data, torch.from_numpy(pairs))
        else:
            set_edges(data, training.edges)
        self._training = training
        self._targets = {
            split: EvalTargets.from_pairs(
                user[label == index],
                item[label == index],
                candidates[split] if candidates else None,
            )
            for index, split in ((1, 'val'), (2, 'test'))
        }
        self._fingerprint: str | None = None
        self._source = data
        if self.pre_transform is not None:
            self.data = self._apply(self.pre_transform)

    def _apply(self, pre_transform: Transform) -> HeteroData:
        r"""Applies :obj:`pre_transform` to the graph."""
        return pre_transform(copy.copy(self.data))

    def _find_known(
        self,
        user: np.ndarray,
        item: np.ndarray,
        features: Mapping[str, np.ndarray | Tensor],
        masks: Mapping[str, np.ndarray] | None,
        known_users: np.ndarray | None,
        known_items: np.ndarray | None,
    ) -> None:
        r"""Marks the users and items that exist. Gaps in the numbering and
        padding rows do not: they have neither interactions nor features.
        """
        users, items = np.zeros(len(self.user_ids), bool), np.zeros(len(self.item_ids), bool)
        users[user], items[item] = True, True
        rest = np.flatnonzero(~items)
        for modality, x in features.items():
            if len(x) == len(items) and len(rest):
                found = np.asarray(x[rest] != 0).any(axis=1)
                if masks and modality in masks:
                    found &= masks[modality][rest]
                items[rest[found]] = True
        self.known_users = torch.from_numpy(users if known_users is None else users | known_users)
        self.known_items = torch.from_numpy(items if known_items is None else items | known_items)

    @property
    def num_users(self) -> int:
        return self.data[USER].num_nodes

    @property
    def num_items(self) -> int:
        return self.data[ITEM].num_nodes

    @property
    def modalities(self) -> list[str]:
        r"""The names of the modalities in alphabetical order."""
        return sorted(key[2:] for key in self.data[ITEM].keys() if key.startswith('x_'))

    @property
    def item_count(self) -> Tensor:
        r"""Number of training interactions of every item, **[N]**."""
        if self._training is not None:
            return torch.from_numpy(self._training.items)
        return self.data[RATES].edge_index[1].bincount(minlength=self.num_items)

    def targets(self, split: str) -> EvalTargets:
        r"""Returns the held-out interactions of a split.

        Args:
            split: :obj:`'val'` or :obj:`'test'`.

        Raises:
            ValueError: If the split is neither of them.
        """
        if split not in self._targets:
            raise ValueError(f"Unknown split '{split}'; expected 'val' or 'test'.")
        return self._targets[split]

    def unseen_targets(self, split: str) -> EvalTargets:
        r"""Returns the held-out interactions of items without a training
        interaction, with only such items as candidates. The result is empty if
        there is no such interaction.

        Args:
            split: :obj:`'val'` or :obj:`'test'`.

        Raises:
            ValueError: If the split is neither of them.
        """
        targets = self.targets(split)
        seen = self.item_count > 0
        unseen = ~seen & self.known_items
        if targets.candidates is not None:
            unseen &= torch.zeros_like(seen).index_fill(0, targets.candidates, True)
        row, item = targets.index[:, unseen[targets.item]]
        candidates = unseen.nonzero().view(-1).numpy()
        return EvalTargets.from_pairs(targets.user[row].numpy(), item.numpy(), candidates)

    @property
    def fingerprint(self) -> str:
        r"""A hash of the interactions of all splits and of the features before
        any transform. It is computed on first use and does not depend on the
        order of rows.
        """
        if self._fingerprint is None:
            data = self._source
            self._fingerprint = fingerprint(
                [data[USER].num_nodes, data[ITEM].num_nodes, unread_edges(data[RATES])],
                [[t.user, t.ptr, t.item, t.candidates] for t in self._targets.values()],
                {key[2:]: Single(x) for key, x in data[ITEM].items() if key.startswith('x_')},
            )
        return self._fingerprint

    def summary(self) -> dict[str, Any]:
        r"""Returns sizes, density, and the width of each modality."""
        count = self.item_count
        counts = {'train': int(count.sum())}
        counts |= {split: t.item.numel() for split, t in self._targets.items()}
        total = sum(counts.values())
        return {
            'name': self.name,
            'users': self.num_users,
            'items': self.num_items,
            **counts,
            'density': total / (self.num_users * self.num_items),
            'interactions_per_user': total / self.num_users,
            'items_without_training': self.num_items - int((count > 0).sum()),
            'modalities': {m: self.data[ITEM][f'x_{m}'].size(1) for m in self.modalities},
        }

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> HeteroData:
        if index not in (0, -1):
            raise IndexError(f'{self.__class__.__name__} holds one graph, got index {index}')
        return self.data if self.transform is None else self.transform(copy.copy(self.data))

    def __repr__(self) -> str:
        sizes = self.summary()
        numbers = ', '.join(f'{k}={sizes[k]}' for k in ('users', 'items', *SPLIT_NAMES))
        modalities = ', '.join(self.modalities)
        return f'{self.__class__.__name__}({self.name}, {numbers}, modalities=[{modalities}])'
