r"""Datasets in the standard layout: a table of interactions, and a feature
matrix for each modality.
"""

from __future__ import annotations

import os.path as osp
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motor_geo.data.datasets.base import (
    RecommendationDataset,
    Training,
    Transform,
    unique_pairs,
)
from motor_geo.data.datasets.columns import Columns
from motor_geo.data.datasets.features_folder import finite, load_features
from motor_geo.data.datasets.filters import Interactions, Options, check_labels, leave_out
from motor_geo.data.datasets.frame import read_frame
from motor_geo.data.datasets.item_index import (
    index_by_list,
    index_by_row,
    index_ids,
    index_items,
)
from motor_geo.data.datasets.layouts import find_source, raw_ids, read_source
from motor_geo.data.datasets.names import ROLES, STANDARD
from motor_geo.data.datasets.shards import Shards, arguments, find_shards
from motor_geo.data.datasets.split import cold_items, hold_out_items, split_interactions
from motor_geo.data.datasets.subsample import drop_modalities, thin_training
from motor_geo.parallel.edge_part import EdgePart


class TableDataset(RecommendationDataset):
    r"""A folder with interactions and item features.

    ============================ ==============================================
    :obj:`NAME.inter`            columns :obj:`userID`, :obj:`itemID`,
                                 optionally :obj:`x_label` (0 training, 1
                                 validation, 2 test) and :obj:`timestamp`;
                                 tab- or comma-separated, with a header
    :obj:`<modality>_feat.npy`   a feature matrix, one row per item
    :obj:`<modality>_mask.npy`   optional booleans: items that have the
                                 modality; the others get its mean row
    :obj:`items.tsv`             optional: a column :obj:`itemID` with the raw
                                 id of each row of the feature matrices
    ============================ ==============================================

    The interactions may also come from a :obj:`.csv`, :obj:`.tsv` or
    :obj:`.parquet` file (which needs :obj:`pyarrow`). Other columns are
    ignored. Text may be compressed (:obj:`.gz`; :obj:`.zst` with
    :obj:`pyarrow`). The dataset also reads one file per split
    (:obj:`NAME.train.inter`, :obj:`NAME.valid.inter`, :obj:`NAME.test.inter`),
    and lists of items by user in :obj:`train.json`, :obj:`val.json` and
    :obj:`test.json`. :obj:`u_id_mapping.csv` and :obj:`i_id_mapping.csv` map
    numbers to raw ids. Features may also be a :obj:`.npz` with one array or a
    :obj:`.pt` with one tensor.

    A folder that :func:`~motor_geo.data.datasets.write_shards.write_shards`
    (:obj:`motor-geo shard`) has written is read like the folder that it was
    written from. All arguments that determine the interactions are then fixed.

    A column name may end in a type (:obj:`user_id:token`). Other common names
    (:obj:`user_id`, :obj:`movieId`) are accepted with a warning.

    Integer item ids are rows of the feature matrices, and the number of rows is
    the number of items. :obj:`items.tsv` maps text ids, or other integers, to
    rows. Without features and :obj:`items.tsv`, integer ids must run from 0
    without gaps, and text ids are numbered in sorted order. The same applies to
    users. If at most one id in a thousand is missing, its index remains unused,
    with a warning.

    Args:
        path: The folder, or the file of interactions inside it.
        split: :obj:`'column'` takes the splits from the column
            :obj:`x_label`. A key of
            :obj:`motor_geo.data.datasets.split.SPLITS` creates new ones.
            (default: :obj:`'column'` if there is such a column, and
            :obj:`'random'` otherwise)
        seed: Seed of the split.
        mmap: If set to :obj:`True`, keeps float32 and float16 features on disk
            if no item lacks them. Models convert float16 in blocks.
        reindex: If set to :obj:`True`, renumbers integer ids with gaps (those
            of items only if they are not rows of features).
        modalities: Names of the modalities to read. (default: all)
        train_share: Share of the training interactions to keep, drawn at
            random. Users who lose all of theirs are not evaluated.
        missing_share: Share of the items that lose one of their modalities,
            drawn at random, and get its mean row instead.
        user: Name of the column of users.
            (default: :obj:`'userID'`, or another common name)
        item: Name of the column of items, also in the file of items.
            (default: :obj:`'itemID'`, or another common name)
        time: Name of the column of times, numbers or ISO dates.
            (default: :obj:`'timestamp'`, or another common name)
        label: Name of the column of labels. (default: :obj:`'x_label'`)
        rating: Name of the column of ratings.
            (default: :obj:`'rating'`, or another common name)
        min_rating: If given, removes interactions with a lower rating.
        event: If given, keeps only these events, such as :obj:`'purchase'`.
        event_column: Name of the column of events.
            (default: :obj:`'event'`, or another common name)
        core: If given, repeatedly removes users and items with fewer distinct
            interactions until every remaining one has at least that many, and
            renumbers them.
        per_user: If given, keeps a random sample of all interactions with this
            many per user on average and at least one of every user, before
            :obj:`core` applies. Combine it with a new :obj:`split`.
        cold_share: Share of the items to hold out entirely, drawn at random:
            all interactions of one half are for validation, and those of the
            other half for test. All other interactions stay in their splits.
        on_disk: If set to :obj:`True`, reads the training interactions of a data
            set in shards only when they are needed. Each copy of the graph reads
            its own. Other data sets, and shards with a :obj:`train_share`, are
            in memory.
        transform: A function that transforms the graph on every access
            (:obj:`dataset[0]`).
        pre_transform: A function that transforms the graph once.

    Raises:
        FileNotFoundError: If the folder, the interactions or a modality are
            missing.
        ValueError: If an argument is out of range, or a file is malformed or
            does not match the others; the message names the file, the line and
            what was expected.
    """

    folder: str | None = None  # The folder of the files.
    shards: Shards | None = None  # If the folder holds shards.

    def __init__(
        self,
        path: str,
        split: str | None = None,
        seed: int = 0,
        mmap: bool = False,
        reindex: bool = False,
        modalities: list[str] | None = None,
        train_share: float = 1.0,
        missing_share: float = 0.0,
        user: str | None = None,
        item: str | None = None,
        time: str | None = None,
        label: str | None = None,
        rating: str | None = None,
        min_rating: float | None = None,
        event: list[str] | str | None = None,
        event_column: str | None = None,
        core: int | None = None,
        cold_share: float = 0.0,
        per_user: float | None = None,
        on_disk: bool = False,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> None:
        super().__init__(transform, pre_transform)
        event = [event] if isinstance(event, str) else event
        options = Options(
            split, seed, train_share, missing_share, min_rating, event, core, cold_share, per_user
        )
        options.check()
        given = dict(zip(ROLES, (user, item, time, label, rating, event_column)))
        shards = find_shards(path)
        if shards is not None:
            shards.check(arguments(given, options, reindex))
            self._read_shards(shards, options, mmap, modalities, on_disk)
            return
        source = find_source(path)
        folder = self.folder = source.folder
        table, names = read_source(source, split, given, options.columns)
        features, masks = load_features(folder, mmap, modalities)
        user_ids, users = index_ids(table, names['user'], reindex)
        item_ids, items, items_file = index_items(
            table, names['item'], folder, features, reindex, item
        )
        user_ids = raw_ids(folder, 'user', user_ids)
        if items_file is None:
            item_ids = raw_ids(folder, 'item', item_ids)
        data = Interactions(
            table,
            names,
            users,
            items,
            user_ids,
            item_ids,
            features,
            masks,
            items_file is not None,
        )
        self._fill(source.name, data, options)

    @classmethod
    def from_frame(
        cls,
        interactions: Any,
        features: Mapping[str, np.ndarray | Tensor] | None = None,
        user: str | None = None,
        item: str | None = None,
        time: str | None = None,
        label: str | None = None,
        rating: str | None = None,
        event_column: str | None = None,
        *,
        items: Sequence[Any] | np.ndarray | None = None,
        masks: Mapping[str, np.ndarray | Tensor] | None = None,
        name: str = 'frame',
        split: str | None = None,
        seed: int = 0,
        reindex: bool = False,
        train_share: float = 1.0,
        missing_share: float = 0.0,
        min_rating: float | None = None,
        event: list[str] | str | None = None,
        core: int | None = None,
        cold_share: float = 0.0,
        per_user: float | None = None,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> TableDataset:
        r"""Creates a dataset from a table in memory.

        Args:
            interactions: A pandas or polars data frame, an Arrow table, any
                other object with Arrow's C stream interface, or a dictionary of
                arrays.
            features: The feature matrix of each modality, **[N, d]**.
            user: Name of the column of users. (default: :obj:`'userID'`, or
                another common name)
            item: Name of the column of items. (default: :obj:`'itemID'`, or
                another common name)
            time: Name of the column of times. (default: :obj:`'timestamp'`, or
                another common name)
            label: Name of the column of labels. (default: :obj:`'x_label'`)
            rating: Name of the column of ratings. (default: :obj:`'rating'`, or
                another common name)
            event_column: Name of the column of events. (default:
                :obj:`'event'`, or another common name)
            items: The item id of each row of the features, **[N]**. (default:
                item ids are rows)
            masks: Which items have each modality, **[N]**. The rows of other
                items may contain NaN. (default: all)
            name: Name of the dataset.
            split: The split rule. This and all following arguments are those
                of :class:`TableDataset`.
            seed: Seed of the split.
            reindex: If set to :obj:`True`, renumbers integer ids with gaps.
            train_share: Share of the training interactions to keep.
            missing_share: Share of the items that lose a modality.
            min_rating: If given, removes interactions with a lower rating.
            event: If given, keeps only these events.
            core: Minimum number of interactions per user and item.
            cold_share: Share of the items to hold out entirely.
            per_user: Mean number of interactions per user to keep.
            transform: A function that transforms the graph on every access
                (:obj:`dataset[0]`).
            pre_transform: A function that transforms the graph once.

        Raises:
            ImportError: If the table needs :obj:`pyarrow`, which is not
                installed.
            ValueError: If an argument is out of range, or a column is missing
                or malformed or does not match the features.
        """
        self = cls.__new__(cls)
        RecommendationDataset.__init__(self, transform, pre_transform)
        event = [event] if isinstance(event, str) else event
        options = Options(
            split, seed, train_share, missing_share, min_rating, event, core, cold_share, per_user
        )
        options.check()
        given = dict(zip(ROLES, (user, item, time, label, rating, event_column)))
        table, names = read_frame(interactions, name, split, given, options.columns)
        arrays = {m: _as_array(x) for m, x in (features or {}).items()}
        present = {m: _as_array(mask) for m, mask in (masks or {}).items()}
        for modality, x in arrays.items():
            if x.ndim != 2 or x.dtype.kind not in 'fiu' or len(x) != len(arrays[min(arrays)]):
                raise ValueError(
                    f"Features '{modality}': expected a numeric matrix with one row per item, got "
                    f'{x.dtype} {list(x.shape)}.'
                )
            mask = present.get(modality)
            if mask is not None and (mask.dtype != bool or mask.shape != x.shape[:1]):
                raise ValueError(
                    f"Mask '{modality}': expected {len(x)} booleans, got {mask.dtype} "
                    f'{list(mask.shape)}.'
                )
            arrays[modality] = finite(modality, x, mask)
        user_ids, users = index_ids(table, names['user'], reindex)
        if items is not None:
            other = read_frame({STANDARD['item']: items}, f'{name}, items', None, {}, (), ['item'])
            item_ids, codes = index_by_list(table, names['item'], other[0], STANDARD['item'])
        elif arrays:
            rows = len(arrays[min(arrays)])
            item_ids, codes = index_by_row(table, names['item'], rows, f"'{min(arrays)}'")
        else:
            item_ids, codes = index_ids(table, names['item'], reindex)
        for modality, x in arrays.items():
            if len(x) != len(item_ids):
                raise ValueError(
                    f"Features '{modality}': expected {len(item_ids)} rows (one per entry of "
                    f"'items'), got {len(x)}."
                )
        data = Interactions(
            table,
            names,
            users,
            codes,
            user_ids,
            item_ids,
            arrays,
            present,
            items is not None,
        )
        self._fill(name, data, options)
        return self

    def _read_shards(
        self,
        shards: Shards,
        options: Options,
        mmap: bool,
        modalities: list[str] | None,
        on_disk: bool,
    ) -> None:
        r"""Reads interactions that were filtered, distinct and split before."""
        self.shards, self.folder = shards, shards.folder
        folder, training, times = shards.folder, None, None
        if on_disk and options.train_share == 1:
            columns, training, times = shards.scan()
        else:
            columns = shards.read()
        features, masks = load_features(folder, mmap, modalities)
        item_ids = shards.raw_ids('item')
        for modality, x in features.items():
            if len(x) != len(item_ids):
                raise ValueError(
                    f"'{osp.join(folder, modality)}_feat.npy': expected {len(item_ids)} rows (one "
                    f'per item), got {len(x)}.'
                )
        numbers: dict[str, np.ndarray] = {
            role: x for role, x in columns.items() if role in ('label', 'time')
        }
        data = Interactions(
            Columns(folder, numbers=numbers, unit='row'),
            {role: role for role in numbers},
            columns['user'],
            columns['item'],
            shards.raw_ids('user'),
            item_ids,
            features,
            masks,
            shards.listed,
        )
        options = Options(
            seed=shards.options['seed'],
            train_share=options.train_share,
            missing_share=options.missing_share,
        )
        self._fill(shards.name, data, options, shards.rule, training)
        if times is not None:
            self.first_time = torch.from_numpy(times)

    def part(self, first: int, last: int) -> EdgePart:
        r"""Reads the training interactions of the users :obj:`first, ..., last - 1` of a
        data set in shards that is :obj:`on_disk`.
        """
        assert self.shards is not None and self._training is not None
        count = self._training.users
        pairs = self.shards.read_training(first, last, int(count[first:last].sum()))
        return EdgePart(torch.from_numpy(pairs), int(count[:first].sum()), int(count.sum()))

    def _fill(
        self,
        name: str,
        data: Interactions,
        options: Options,
        rule: str | None = None,
        training: Training | None = None,
    ) -> None:
        table, names = data.table, data.names
        check_labels(table, names)
        label = table.numbers.get(names.get('label', ''))
        locate: Callable[[int], str] = table.locate
        user, item = data.user, data.item
        time = table.numbers.get(names.get('time', ''))
        if options.filters:
            data, rows = leave_out(name, data, options)
            user, item, locate = data.user, data.item, _through(locate, rows)
            label, time = (None if x is None else x[rows] for x in (label, time))
        candidates = None
        if label is None:
            rule = options.split or 'random'
            keep = np.sort(unique_pairs(user, item, time))
            if len(keep) < len(user):
                repeated = np.setdiff1d(np.arange(len(user)), keep, assume_unique=True)
                warnings.warn(
                    f"'{name}': removed {len(repeated)} duplicate interactions before the split, "
                    f'among them {locate(int(repeated[0]))}.',
                    stacklevel=3,
                )
                locate = _through(locate, keep)
            user, item, time = user[keep], item[keep], None if time is None else time[keep]
            label = split_interactions(user, item, rule, options.seed, time)
        used = np.zeros(len(data.user_ids), bool), np.zeros(len(data.item_ids), bool)
        used[0][user], used[1][item] = True, True
        if training is not None:
            for mask, count in zip(used, (training.users, training.items)):
                mask |= count > 0
        if rule == 'cold_item':
            items = np.flatnonzero(used[1])
            candidates = dict(zip(('val', 'test'), cold_items(items, options.seed)))
        label = np.asarray(label, np.int8)
        if options.cold_share > 0:
            label = hold_out_items(item, label, options.seed, options.cold_share)
        known = used[0], np.ones_like(used[1]) if data.listed else used[1]
        if options.train_share < 1:
            share = options.train_share
            keep = np.flatnonzero(thin_training(user, item, label, share, options.seed))
            user, item, label = user[keep], item[keep], label[keep]
            time = None if time is None else time[keep]
            locate = _through(locate, keep)
        if time is not None:
            self.first_time = _first_time(item, label, time, len(data.item_ids))
        features, masks = data.features, data.masks
        if options.missing_share > 0 and features:
            masks = drop_modalities(
                list(features), len(data.item_ids), options.missing_share, options.seed, masks
            )
        self._build(
            name,
            user,
            item,
            label,
            features,
            data.user_ids,
            data.item_ids,
            candidates,
            masks,
            locate,
            rule,
            *known,
            training,
        )


def _as_array(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def _first_time(item: np.ndarray, label: np.ndarray, time: np.ndarray, size: int) -> Tensor:
    r"""Time of the first training interaction of every item, NaN without any."""
    first = np.full(size, np.inf)
    np.minimum.at(first, item[label == 0], time[label == 0].astype(np.float64))
    return torch.from_numpy(np.where(np.isinf(first), np.nan, first))


def _through(locate: Callable[[int], str], rows: np.ndarray) -> Callable[[int], str]:
    return lambda row: locate(int(rows[row]))
