r"""Cuts the interactions of a data set by users, without all of them in memory.

The first pass over the files finds the ids and counts their rows. The second one writes every
row to the shard of its user. Everything else reads one shard after the other.
"""

from __future__ import annotations

import json
import os.path as osp
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from motor_geo.data.datasets.base import check_splits, unique_pairs
from motor_geo.data.datasets.blocks import read_blocks
from motor_geo.data.datasets.features_folder import load_features
from motor_geo.data.datasets.filters import Options, check_left
from motor_geo.data.datasets.layouts import Block, Source, find_source, stream_source
from motor_geo.data.datasets.names import ROLES
from motor_geo.data.datasets.progress import Bars
from motor_geo.data.datasets.shards import (
    COLUMNS,
    FILE,
    FORMAT,
    IDS,
    META,
    TIME,
    VERSION,
    Shard,
    Shards,
    arguments,
    content_hash,
    find_shards,
    hash_of,
)
from motor_geo.data.datasets.spill import Spill, cut
from motor_geo.data.datasets.split import (
    TEST,
    TRAIN,
    VAL,
    cold_items,
    global_places,
    label_from,
    leave_one_out,
    moved_to_training,
    random_labels,
    random_leave_one_out,
    temporal_split,
)
from motor_geo.data.datasets.stream_index import Index, read_index
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.extras import needs
from motor_geo.utils.files import check_new, move_folder, temporary_folder, writing

ROWS = 2**21  # Rows of a shard, unless the number of shards is given.
GROUP = 2**20  # Rows of a row group in a file.
FEATURE_ROWS = 65_536  # Rows of features to copy at a time.


def write_shards(
    path: str,
    out: str,
    num_shards: int | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    reindex: bool = False,
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
    progress: bool = False,
) -> Shards:
    r"""Writes a data set as shards, which :class:`~motor_geo.data.TableDataset`
    reads like the original folder. A shard holds the interactions of consecutive
    users, and all shards hold about the same number of rows.

    The folder is complete or absent: it gets its name when all files are on the
    disk.

    Args:
        path: The folder of the data set, or the file of interactions inside it.
        out: The new folder, which must be empty or not exist.
        num_shards: Number of shards. (default: one per two million rows, and at
            least 8)
        split: The split rule. This and the following arguments are those of
            :class:`~motor_geo.data.TableDataset`.
        seed: Seed of the split.
        reindex: If set to :obj:`True`, renumbers integer ids with gaps.
        user: Name of the column of users.
        item: Name of the column of items.
        time: Name of the column of times.
        label: Name of the column of labels.
        rating: Name of the column of ratings.
        min_rating: If given, removes interactions with a lower rating.
        event: If given, keeps only these events.
        event_column: Name of the column of events.
        core: If given, keeps users and items with at least so many interactions.
            Reads all shards once per round.
        cold_share: Share of the items to hold out entirely.
        progress: If set to :obj:`True`, shows progress bars in a terminal.

    Raises:
        ConfigError: If :obj:`out` is not empty or not writable.
        ImportError: If :obj:`pyarrow` is not installed.
        ValueError: As :class:`~motor_geo.data.TableDataset`.
    """
    event = [event] if isinstance(event, str) else event
    options = Options(
        split, seed, min_rating=min_rating, event=event, core=core, cold_share=cold_share
    )
    options.check()
    if num_shards is not None and num_shards < 1:
        raise ValueError(f"'num_shards' must be at least 1, got {num_shards}.")
    _check_pyarrow()
    check_new(out)
    if find_shards(path) is not None:
        raise ValueError(f"'{path}' already holds shards; expected the original data set.")
    source = find_source(path)
    names = dict(zip(ROLES, (user, item, time, label, rating, event_column)))
    known = arguments(names, options, reindex)

    def blocks(announce: bool) -> Iterator[Block]:
        return stream_source(source, split, names, options.columns, read_blocks, announce)

    features, masks = load_features(source.folder, mmap=True)
    bars = Bars(progress)
    index = read_index(source, blocks(True), options, features, reindex, item, bars)
    count = num_shards or max(8, -(-index.rows // ROWS))
    parent = osp.dirname(osp.realpath(out))
    with writing(out), temporary_folder(parent) as folder:
        spill = Spill(osp.join(folder, 'rows'), index, cut(index.degree, count))
        with bars('rows', index.rows, 'row') as bar:
            for block in blocks(False):
                spill.add(block, options)
                bar.update(len(block.table))
        spill.check(source)
        writer = Writer(source, spill, index, options, folder, bars)
        writer.run()
        copy_features(folder, features, masks, writer.items if options.core else None)
        origins = [osp.join(source.folder, f'{modality}_feat.json') for modality in features]
        for file in (*(() if options.core else origins), index.items_file):
            if file is not None and osp.isfile(file):
                shutil.copyfile(file, osp.join(folder, osp.basename(file)))
        shutil.rmtree(spill.folder)
        _write_meta(folder, writer, known)
        move_folder(folder, out)
    return Shards(osp.realpath(out), _meta(writer, known))


def _check_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(needs('Writing shards', 'pyarrow', extra='parquet')) from error


class Writer:
    r"""Turns spilled rows into shards, one after the other.

    Args:
        source: The source of the interactions.
        spill: Their rows.
        index: The ids.
        options: The options.
        folder: The folder of the shards.
        bars: The progress bars.
    """

    def __init__(
        self,
        source: Source,
        spill: Spill,
        index: Index,
        options: Options,
        folder: str,
        bars: Bars,
    ):
        self.source, self.spill, self.index = source, spill, index
        self.options, self.folder, self.bars = options, folder, bars
        #: The split rule, or `None` if the files specify the splits.
        self.rule = None if index.labeled else options.split or 'random'
        #: Which users and items remain, by index.
        self.users, self.items = self._remaining()
        self.shards: list[Shard] = []

    def run(self) -> None:
        r"""Writes all shards.

        Raises:
            ValueError: If no interaction remains, or a split is empty.
        """
        self._deduplicate()
        if self.options.core is not None:
            self._find_core(self.options.core)
        present = self._renumber()
        if self.rule is not None:
            self._split(present)
        held: Sequence[np.ndarray] = ()
        if self.options.cold_share > 0:
            held = cold_items(present, self.options.seed, self.options.cold_share)
        self._write(held)

    def _remaining(self) -> tuple[np.ndarray, np.ndarray]:
        counts, options = self.index.counts, self.options
        users, items = (np.ones(len(counts[role]), bool) for role in ('user', 'item'))
        if options.filters:
            users = counts['user'] > 0
            if not (self.index.has_features or self.index.items_file):
                items = counts['item'] > 0
        return users, items

    def _deduplicate(self) -> None:
        removed = 0
        by = 'label' if self.index.labeled else TIME
        for number in self.bars.over('distinct', len(self.spill)):
            rows = self.spill.read(number)
            priority = rows[by] if by in (self.spill.dtype.names or ()) else None
            keep = np.sort(unique_pairs(rows['user'], rows['item'], priority))
            removed += len(rows) - len(keep)
            if len(keep) < len(rows):
                self.spill.write(number, rows[keep])
        if removed:
            warnings.warn(
                f"'{self.source.name}': removed {removed} duplicate interactions.", stacklevel=3
            )

    def _kept(self, number: int) -> np.ndarray:
        rows = self.spill.read(number)
        return rows[self.users[rows['user']] & self.items[rows['item']]]

    def _find_core(self, core: int) -> None:
        before = -1
        while (left := int(self.users.sum()) + int(self.items.sum())) != before:
            before = left
            degrees = [np.zeros(len(mask), np.int64) for mask in (self.users, self.items)]
            for number in self.bars.over(f'{core}-core', len(self.spill)):
                rows = self._kept(number)
                for degree, role in zip(degrees, ('user', 'item')):
                    degree += np.bincount(rows[role], minlength=len(degree))
            self.users, self.items = (degree >= core for degree in degrees)
        check_left(self.source.name, left, self.options)

    def _renumber(self) -> np.ndarray:
        r"""Leaves only what remains, and returns the items with interactions."""
        present = np.zeros(int(self.items.sum()), bool)
        new = {'user': np.cumsum(self.users) - 1, 'item': np.cumsum(self.items) - 1}
        for number in range(len(self.spill)):
            rows = self._kept(number)
            for role in ('user', 'item'):
                rows[role] = new[role][rows[role]]
            present[rows['item']] = True
            self.spill.write(number, rows)
        self.bounds = np.concatenate([[0], np.cumsum(self.users)])[self.spill.bounds]
        return np.flatnonzero(present)

    def _split(self, present: np.ndarray) -> None:
        label = self._labels(present)
        drawn = 0  # Numbers that earlier shards have drawn, one per interaction.
        for number in self.bars.over('split', len(self.spill)):
            rows = self.spill.read(number)
            rng = self._generator(drawn)
            rows['label'] = label(number, rows, rng)
            drawn += len(rows)
            self.spill.write(number, rows)
        if self.rule == 'random':
            self._move(self._generator(drawn))

    def _generator(self, drawn: int) -> np.random.Generator:
        r"""The generator of the split after so many draws."""
        rng = np.random.default_rng(self.options.seed)
        rng.bit_generator.advance(drawn)  # type: ignore[attr-defined]
        return rng

    def _labels(
        self, present: np.ndarray
    ) -> Callable[[int, np.ndarray, np.random.Generator], np.ndarray]:
        r"""Returns a function that labels the rows of a shard."""
        seed, timed = self.options.seed, self.index.time is not None
        if self.rule == 'random':
            #: Which items have a training interaction, and the held-out ones of others by shard.
            self.trained = np.zeros(int(self.items.sum()), bool)
            self.unseen: list[tuple[int, np.ndarray, np.ndarray]] = []
            return self._random
        if self.rule == 'cold_item':
            val, test = cold_items(present, seed)
            return lambda number, rows, rng: _hold_out(rows['item'], rows['label'], (val, test))
        if self.rule == 'global_time':
            bounds = self._points_in_time()
            return lambda number, rows, rng: label_from(rows[TIME], bounds)
        if self.rule == 'leave_one_out' and not timed:
            return lambda number, rows, rng: random_leave_one_out(rows['user'], rows['item'], rng)
        split = temporal_split if self.rule == 'temporal' else leave_one_out
        return lambda number, rows, rng: split(
            rows['user'], rows['item'], seed, rows[TIME] if timed else None
        )

    def _random(self, number: int, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        label, order = random_labels(rows['user'], rows['item'], rng)
        self.trained[rows['item'][label == TRAIN]] = True
        held = order[label[order] != TRAIN]
        held = held[~self.trained[rows['item'][held]]]  # Later shards may train on the item.
        self.unseen.append((number, held, rows['item'][held]))
        return label

    def _move(self, rng: np.random.Generator) -> None:
        r"""Moves one interaction of every item without any to training."""
        parts = [(number, *_only(held, item, self.trained)) for number, held, item in self.unseen]
        shard = np.concatenate([np.full(len(held), number) for number, held, _ in parts])
        place, item = (np.concatenate([part[column] for part in parts]) for column in (1, 2))
        moved = moved_to_training(item, rng)
        for number in np.unique(shard[moved]).tolist():
            rows = self.spill.read(number)
            rows['label'][place[moved[shard[moved] == number]]] = TRAIN
            self.spill.write(number, rows)

    def _points_in_time(self) -> list[Any]:
        times = []
        for number in range(len(self.spill)):
            path = osp.join(self.spill.folder, f'{number}.times.npy')
            np.save(path, np.sort(self.spill.read(number)[TIME]))
            times.append(np.load(path, mmap_mode='r'))
        return [nth(times, place) for place in global_places(sum(map(len, times)))]

    def _write(self, held: Sequence[np.ndarray]) -> None:
        r"""Writes the files.

        Args:
            held: Items to hold out for validation and test, if any.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        counts, given, most = np.zeros(3, np.int64), np.zeros(3, np.int64), 0
        names = [*COLUMNS, *([TIME] if self.index.time is not None else [])]
        for number in self.bars.over('shards', len(self.spill)):
            rows = self.spill.read(number)
            if len(held):
                rows['label'] = _hold_out(rows['item'], rows['label'], held)
            rows = rows[np.lexsort((rows['item'], rows['user']))]
            columns = {name: np.ascontiguousarray(rows[name]) for name in names}
            file = FILE.format(number)
            pq.write_table(
                pa.table(columns),
                osp.join(self.folder, file),
                row_group_size=GROUP,
                write_page_checksum=True,
            )
            first, last = (int(bound) for bound in self.bounds[number : number + 2])
            self.shards.append(Shard(file, first, last, len(rows), content_hash(columns)))
            given += np.bincount(rows['label'], minlength=3)
            known = np.zeros(last - first, bool)
            known[rows['user'][rows['label'] == TRAIN] - first] = True
            rows = rows[known[rows['user'] - first]]
            counts += np.bincount(rows['label'], minlength=3)
            most = max(most, int(np.bincount(rows['user'] - first, minlength=1).max(initial=0)))
        check_splits(self.source.name, counts, given, self.rule, most)
        self.ids = {}
        for role, keep in (('user', self.users), ('item', self.items)):
            ids = self.index.ids[role][keep]
            ids = np.array(ids.tolist(), str) if ids.dtype.kind == 'U' else ids
            pq.write_table(pa.table({'id': ids}), osp.join(self.folder, IDS.format(role)))
            self.ids[role] = fingerprint(ids)


def _only(held: np.ndarray, item: np.ndarray, trained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left = ~trained[item]
    return held[left], item[left]


def _hold_out(item: np.ndarray, label: np.ndarray, held: Sequence[np.ndarray]) -> np.ndarray:
    label = label.copy()
    for split, items in zip((VAL, TEST), held):
        label[np.isin(item, items)] = split
    return label


def nth(arrays: Sequence[np.ndarray], place: int) -> Any:
    r"""Returns the entry at a place in the sorted entries of several arrays.

    Args:
        arrays: Sorted arrays.
        place: The place, from 0.
    """
    low = np.zeros(len(arrays), np.int64)
    high = np.array([len(x) for x in arrays])
    while True:
        longest = int((high - low).argmax())
        pivot = arrays[longest][(low[longest] + high[longest]) // 2]
        left, right = (
            np.array([np.searchsorted(x, pivot, side) for x in arrays])
            for side in ('left', 'right')
        )
        if left.sum() <= place < right.sum():
            return pivot
        if place < left.sum():
            high = np.minimum(high, left)
        else:
            low = np.maximum(low, right)


def copy_features(
    folder: str,
    features: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    keep: np.ndarray | None,
) -> None:
    r"""Writes features in blocks of rows.

    Args:
        folder: The folder.
        features: The features by modality, **[N, d]**.
        masks: Which items have each modality, **[N]**.
        keep: Which items remain, **[N]**. (default: all)
    """
    for modality, x in features.items():
        rows = np.arange(len(x)) if keep is None else np.flatnonzero(keep)
        shape = (len(rows), *x.shape[1:])
        with open(osp.join(folder, f'{modality}_feat.npy'), 'wb') as file:
            header = {'descr': x.dtype.str, 'fortran_order': False, 'shape': shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(rows), FEATURE_ROWS):
                file.write(np.ascontiguousarray(x[rows[start : start + FEATURE_ROWS]]).data)
        if modality in masks:
            np.save(osp.join(folder, f'{modality}_mask.npy'), masks[modality][rows])


def _meta(writer: Writer, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        'format': FORMAT,
        'version': VERSION,
        'num_users': int(writer.users.sum()),
        'num_items': int(writer.items.sum()),
        'num_interactions': sum(shard.rows for shard in writer.shards),
        'listed': writer.index.items_file is not None,
        'has_time': writer.index.time is not None,
        'rule': writer.rule,
        'options': dict(options),
        'ids': writer.ids,
        'shards': [shard._asdict() for shard in writer.shards],
        'fingerprint': hash_of(writer.shards, writer.ids, options),
    }


def _write_meta(folder: str, writer: Writer, options: Mapping[str, Any]) -> None:
    with open(osp.join(folder, META), 'w', encoding='utf-8') as file:
        json.dump(_meta(writer, options), file, indent=1)
