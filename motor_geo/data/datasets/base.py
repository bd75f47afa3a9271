r"""What all datasets share: a graph of training interactions, and held-out
ones outside of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.typing import ITEM, RATED_BY, RATES, USER, EvalTargets
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.files import check_finite

SPLIT_NAMES = ('train', 'val', 'test')


def unique_pairs(
    user: np.ndarray, item: np.ndarray, priority: np.ndarray | None = None
) -> np.ndarray:
    r"""Rows of the distinct pairs, sorted by user and item. Of equal pairs the
    row of lowest :obj:`priority` is kept, and the first among those.
    """
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    if (pair[1:] > pair[:-1]).all():  # The usual order of a file.
        return np.arange(len(pair))
    order = np.argsort(pair, kind='stable') if priority is None else np.lexsort((priority, pair))
    pair = pair[order]
    new = np.ones(len(order), bool)
    new[1:] = pair[1:] != pair[:-1]
    return order[new]


def _as_feature(name: str, x: np.ndarray | Tensor, num_items: int) -> Tensor:
    r"""A float32 matrix with a row per item; float32 input is not copied."""
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    if x.ndim != 2 or x.shape[0] != num_items:
        raise ValueError(
            f"Features '{name}': expected {num_items} rows (one per item), got {list(x.shape)}."
        )
    if x.dtype != np.float32:
        with np.errstate(over='ignore'):
            x = x.astype(np.float32)
        check_finite(x, f"Features '{name}' as float32")
    with warnings.catch_warnings():  # Memory-mapped files are read-only.
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        return torch.from_numpy(x)


def _fill_missing(name: str, x: Tensor, mask: Tensor) -> Tensor:
    r"""Gives items without a modality the mean of those that have it."""
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

    The :class:`~torch_geometric.data.HeteroData` holds :obj:`'user'` and
    :obj:`'item'` nodes, the features :obj:`x_<modality>` of items, and the
    **training** interactions in both directions, sorted by user and item.
    Held-out interactions are in :meth:`targets` only.

    Subclasses call :meth:`_build` in their constructor.
    """

    name: str
    data: HeteroData
    user_ids: np.ndarray  # Raw id of each user, [M]
    item_ids: np.ndarray  # Raw id of each item, [N]

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
    ) -> None:
        r"""Makes the graph and the targets.

        A pair that occurs more than once stays in the first of training,
        validation and test only; held-out rows of users without a training
        interaction are dropped. Both give a warning.

        Args:
            name: Name of the dataset.
            user: User index of each interaction, **[E]**.
            item: Item index of each interaction, **[E]**.
            label: 0 (training), 1 (validation) or 2 (test), **[E]**.
            features: A matrix **[N, d]** for each modality.
            user_ids: Raw ids, **[M]**.
            item_ids: Raw ids, **[N]**.
            candidates: Items to be ranked in :obj:`'val'` and :obj:`'test'`.
            masks: Items that have a modality, **[N]**; others get its mean.
            locate: Names a row of the source in messages.

        Raises:
            ValueError: If a split is empty, a label is not 0, 1 or 2, an
                index is out of range or a matrix has a wrong shape.
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
                f"'{name}': removed {len(repeated)} duplicate interactions (pairs stay in the "
                f'first of train, val and test), among them {locate(int(repeated[0]))}.',
                stacklevel=3,
            )
        user, item, label = user[keep], item[keep], label[keep]
        known = np.zeros(len(user_ids), bool)
        known[user[label == 0]] = True
        rows = known[user]
        if not rows.all():
            warnings.warn(
                f"'{name}': dropped {np.sum(~rows)} held-out interactions of "
                f'{len(np.unique(user[~rows]))} users without a training interaction.',
                stacklevel=3,
            )
            user, item, label = user[rows], item[rows], label[rows]
        for split, count in enumerate(np.bincount(label, minlength=3)):
            if count == 0:
                raise ValueError(
                    f"'{name}': split '{SPLIT_NAMES[split]}' has no interactions (label {split})"
                    f'{" of users with a training interaction" if split else ""}; '
                    f'expected at least one.'
                )

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
        train = np.flatnonzero(label == 0)
        pairs = np.stack([user[train], item[train]]).astype(np.int64, copy=False)
        data[RATES].edge_index = torch.from_numpy(pairs)
        data[RATED_BY].edge_index = data[RATES].edge_index.flip(0)
        self._targets = {
            split: EvalTargets.from_pairs(
                user[label == index],
                item[label == index],
                candidates[split] if candidates else None,
            )
            for index, split in ((1, 'val'), (2, 'test'))
        }
        self._fingerprint: str | None = None

    @property
    def num_users(self) -> int:
        return self.data[USER].num_nodes

    @property
    def num_items(self) -> int:
        return self.data[ITEM].num_nodes

    @property
    def modalities(self) -> list[str]:
        r"""Names of the modalities in alphabetical order."""
        return sorted(key[2:] for key in self.data[ITEM].keys() if key.startswith('x_'))

    def targets(self, split: str) -> EvalTargets:
        r"""Held-out interactions of :obj:`'val'` or :obj:`'test'`."""
        if split not in self._targets:
            raise ValueError(f"Unknown split '{split}'; expected 'val' or 'test'.")
        return self._targets[split]

    @property
    def fingerprint(self) -> str:
        r"""Hash of the interactions of all splits and of the features,
        computed on first use; it does not depend on the order of rows.
        """
        if self._fingerprint is None:
            self._fingerprint = fingerprint(
                [self.num_users, self.num_items, self.data[RATES].edge_index],
                [[t.user, t.ptr, t.item, t.candidates] for t in self._targets.values()],
                {m: self.data[ITEM][f'x_{m}'] for m in self.modalities},
            )
        return self._fingerprint

    def summary(self) -> dict[str, Any]:
        r"""Sizes, density, and the width of each modality."""
        counts = {'train': self.data[RATES].num_edges}
        counts |= {split: t.item.numel() for split, t in self._targets.items()}
        total = sum(counts.values())
        seen = int(self.data[RATES].edge_index[1].unique().numel())
        return {
            'name': self.name,
            'users': self.num_users,
            'items': self.num_items,
            **counts,
            'density': total / (self.num_users * self.num_items),
            'interactions_per_user': total / self.num_users,
            'items_without_training': self.num_items - seen,
            'modalities': {m: self.data[ITEM][f'x_{m}'].size(1) for m in self.modalities},
        }

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> HeteroData:
        if index not in (0, -1):
            raise IndexError(f'{self.__class__.__name__} holds one graph, got index {index}')
        return self.data

    def __repr__(self) -> str:
        sizes = self.summary()
        numbers = ', '.join(f'{k}={sizes[k]}' for k in ('users', 'items', *SPLIT_NAMES))
        modalities = ', '.join(self.modalities)
        return f'{self.__class__.__name__}({self.name}, {numbers}, modalities=[{modalities}])'
