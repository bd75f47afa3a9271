r"""Data sets stored in the folder of a run."""

from __future__ import annotations

import os.path as osp
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.data.datasets.base import RecommendationDataset, Transform
from motor_geo.typing import ITEM, RATES, USER, EvalTargets, set_edges
from motor_geo.utils.files import writing
from motor_geo.utils.saved import load, save

#: Name of the file in the folder of a run.
BUNDLE = 'bundle.pt'
SPLITS = ('val', 'test')


class BundledDataset(RecommendationDataset):
    r"""The data of a run, read from :obj:`bundle.pt` in its folder: sizes, raw
    ids, titles, interactions of all splits, features, and item tokens.

    Args:
        path: The folder of the run.
        transform: A function that transforms the graph on every access.
        pre_transform: Accepted for compatibility with other data sets, but not
            applied, because the bundle was written after it.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is damaged.
    """

    token_id: Tensor | None = None
    #: The numbers of users and items and the interactions that the behavior vectors come from.
    fitted: tuple[int, int, Tensor] | None = None

    def __init__(
        self,
        path: str,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> None:
        super().__init__(transform, pre_transform)
        file = osp.join(path, BUNDLE)
        content = load(file, 'the data of a run')
        try:
            check_content(**content)
            self._fill(**content)
        except (AttributeError, TypeError, KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"'{file}' is damaged: expected the data of a run") from error

    @classmethod
    def of(cls, **content: Any) -> BundledDataset:
        r"""Creates a data set from the content of a file, without reading it.

        Args:
            **content: The entries that :func:`content_of` returns.
        """
        self = cls.__new__(cls)
        RecommendationDataset.__init__(self)
        self._fill(**content)
        return self

    def _fill(
        self,
        name: str,
        user_ids: list[Any],
        item_ids: list[Any],
        titles: list[str | None] | None,
        known: tuple[Tensor, Tensor],
        edge_index: Tensor,
        held_out: dict[str, Tensor],
        candidates: dict[str, Tensor | None],
        dropped: Tensor,
        features: dict[str, Tensor],
        token_id: Tensor | None,
        fitted: tuple[int, int, Tensor] | None,
        fingerprint: str | None,
    ) -> None:
        self.name, self.user_ids, self.item_ids = name, np.array(user_ids), np.array(item_ids)
        self.item_titles = None if titles is None else np.array(titles, dtype=object)
        self.known_users, self.known_items = known
        self.dropped, self.token_id, self.fitted = dropped, token_id, fitted
        self.data = self._source = data = HeteroData()
        data[USER].num_nodes, data[ITEM].num_nodes = len(user_ids), len(item_ids)
        for modality in sorted(features):
            data[ITEM][f'x_{modality}'] = features[modality]
        set_edges(data, edge_index)
        self._targets = {}
        for split in SPLITS:
            user, item = held_out[split].numpy()
            some = candidates[split]
            self._targets[split] = EvalTargets.from_pairs(
                user, item, None if some is None else some.numpy()
            )
        self._fingerprint = fingerprint

    def content(self) -> dict[str, Any]:
        r"""Returns the content from which :meth:`of` creates the same data
        set.
        """
        return content_of(self, self.token_id, self.fitted)


def check_content(
    user_ids: list[Any],
    item_ids: list[Any],
    titles: list[str | None] | None,
    known: tuple[Tensor, Tensor],
    edge_index: Tensor,
    held_out: dict[str, Tensor],
    candidates: dict[str, Tensor | None],
    dropped: Tensor,
    features: dict[str, Tensor],
    token_id: Tensor | None,
    fitted: tuple[int, int, Tensor] | None,
    **other: Any,
) -> None:
    r"""Checks that the parts of :obj:`bundle.pt` match.

    Raises:
        ValueError: If an index is out of range, or shapes, types or numbers are
            wrong.
    """
    num_users, num_items = len(user_ids), len(item_ids)

    def check(valid: bool) -> None:
        if not valid:
            raise ValueError('its parts do not match')

    def check_index(x: Tensor, size: int) -> None:
        check(x.dtype == torch.long and bool(((x >= 0) & (x < size)).all()))

    def check_pairs(x: Tensor, users: int, items: int) -> None:
        check(x.dim() == 2 and len(x) == 2)
        check_index(x[0], users)
        check_index(x[1], items)

    check(titles is None or len(titles) == num_items)
    for flag, size in zip(known, (num_users, num_items), strict=True):
        check(flag.dtype == torch.bool and list(flag.shape) == [size])
    for pairs in (edge_index, dropped, *(held_out[split] for split in SPLITS)):
        check_pairs(pairs, num_users, num_items)
    for split in SPLITS:
        some = candidates[split]
        if some is not None:
            check_index(some, num_items)
    for x in features.values():
        check(x.dim() == 2 and len(x) == num_items and bool(x.isfinite().all()))
    if token_id is not None:
        check(token_id.dim() == 2 and len(token_id) == num_items)
        check(not token_id.is_floating_point())
    if fitted is not None:
        users, items, pairs = fitted
        check(users <= num_users and items <= num_items)
        check_pairs(pairs, users, items)


def content_of(
    dataset: RecommendationDataset,
    token_id: Tensor | None = None,
    fitted: tuple[int, int, Tensor] | None = None,
    titles: list[str | None] | None = None,
) -> dict[str, Any]:
    r"""Returns the content of :obj:`bundle.pt` for a data set.

    Args:
        dataset: Any data set.
        token_id: Tokens of its items, **[N, T]**.
        fitted: The numbers of users and items and the interactions **[2, E]**
            that the behavior vectors come from, if they differ from those of
            :obj:`dataset`.
        titles: Titles of the items, **[N]**, used if :obj:`dataset` has none.
    """
    data, held_out, candidates = dataset.data, {}, {}
    for split in SPLITS:
        targets = dataset.targets(split)
        row, item = targets.index
        held_out[split] = torch.stack([targets.user[row], item])
        candidates[split] = targets.candidates
    found = dataset.item_titles
    if found is not None:
        titles = [None if title is None else str(title) for title in found.tolist()]
    return {
        'name': dataset.name,
        'user_ids': dataset.user_ids.tolist(),
        'item_ids': dataset.item_ids.tolist(),
        'titles': titles,
        'known': (dataset.known_users, dataset.known_items),
        'edge_index': data[RATES].edge_index,
        'held_out': held_out,
        'candidates': candidates,
        'dropped': dataset.dropped,
        'features': {m: data[ITEM][f'x_{m}'] for m in dataset.modalities},
        'token_id': token_id,
        'fitted': fitted,
        'fingerprint': dataset.fingerprint,
    }


def write_bundle(content: dict[str, Any], folder: str) -> None:
    r"""Writes the data of a run into its folder."""
    with writing(osp.join(folder, BUNDLE)) as path:
        save(content, path)
