r"""Reads data sets that :func:`~motor_geo.data.datasets.write_shards.write_shards` has cut by
users.
"""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.data.datasets.base import Training
from motor_geo.data.datasets.filters import Options
from motor_geo.data.datasets.reader import open_parquet, parquet_errors
from motor_geo.data.datasets.split import TRAIN
from motor_geo.typing import LazyEdges
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import one_line
from motor_geo.utils.files import check_file, read_json

FORMAT, VERSION = 'motor_geo.shards', 1
META = 'meta.json'
#: Names of the files of a shard, and of the raw ids of users and items.
FILE, IDS = 'shard-{:05d}.parquet', '{}_ids.parquet'
#: Columns of a shard.
COLUMNS = ('user', 'item', 'label')
TIME = 'time'
#: Arguments of :class:`~motor_geo.data.TableDataset` that shards have determined, with the values
#: that ask for nothing.
FIXED: dict[str, Any] = {
    **dict.fromkeys(('split', 'min_rating', 'event', 'core', 'per_user', 'event_column')),
    **dict.fromkeys(('user', 'item', 'time', 'label', 'rating')),
    'seed': 0,
    'cold_share': 0.0,
    'reindex': False,
}


class Shard(NamedTuple):
    r"""The interactions of the users :obj:`first, ..., last - 1`, sorted by user and
    item.
    """

    file: str
    first: int
    last: int
    rows: int
    hash: str


class Scan(NamedTuple):
    r"""What remains in memory of all interactions."""

    held_out: dict[str, np.ndarray]  # Those of other splits, as from `Shards.read`.
    training: Training  # Counts of the training interactions, which stay on the disk.
    first_time: np.ndarray | None  # Of the training interactions of each item, if known, [N].


class Shards:
    r"""A folder of shards.

    Args:
        folder: The folder.
        meta: The content of its :obj:`meta.json`.

    Raises:
        ValueError: If the content is damaged or of another version.
    """

    def __init__(self, folder: str, meta: Mapping[str, Any]):
        self.folder = folder
        path = osp.join(folder, META)
        if meta.get('version') != VERSION:
            raise ValueError(
                f"'{path}' has the version {meta.get('version')}, expected {VERSION}; write the "
                f'shards again (motor-geo shard)'
            )
        try:
            self.shards = [Shard(**entry) for entry in meta['shards']]
            self.num_users, self.num_items = int(meta['num_users']), int(meta['num_items'])
            #: Whether there is a separate list of items.
            self.listed = bool(meta['listed'])
            #: The split rule, or :obj:`None` if the source specified the splits.
            self.rule: str | None = meta['rule']
            #: The options of :class:`~motor_geo.data.TableDataset` with which the shards were made.
            self.options: dict[str, Any] = meta['options']
            self.has_time = bool(meta['has_time'])
            self.ids: dict[str, str] = meta['ids']
            self.fingerprint = str(meta['fingerprint'])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"'{path}' is damaged: {one_line(error)}") from error
        if self.fingerprint != hash_of(self.shards, self.ids, self.options):
            raise ValueError(f"'{path}' is damaged: its hash does not match its content")

    @property
    def name(self) -> str:
        r"""Name of the data set."""
        return osp.basename(self.folder)

    @property
    def rows(self) -> int:
        r"""Number of interactions of all splits."""
        return sum(shard.rows for shard in self.shards)

    def part(self, rank: int, size: int) -> list[Shard]:
        r"""Returns the shards of one of several processes: consecutive ones, and
        about the same number on each.

        Args:
            rank: Number of the process, from 0.
            size: Number of processes, at most that of shards.
        """
        count = len(self.shards)
        return self.shards[count * rank // size : count * (rank + 1) // size]

    def bounds(self, size: int) -> list[int]:
        r"""Returns the first user of each of several processes, and the number of
        users.
        """
        return [*(self.part(rank, size)[0].first for rank in range(size)), self.num_users]

    def raw_ids(self, kind: str) -> np.ndarray:
        r"""Reads the raw ids of all users or items.

        Args:
            kind: :obj:`'user'` or :obj:`'item'`.

        Raises:
            ValueError: If the file is damaged.
        """
        path = osp.join(self.folder, IDS.format(kind))
        column = _read(path, ['id'])['id']
        if column.dtype.kind == 'O':
            column = np.array(column.tolist(), str)
        if fingerprint(column) != self.ids[kind]:
            raise ValueError(f"'{path}' does not match '{META}': expected other ids")
        return column

    def read(self, shards: Sequence[Shard] | None = None) -> dict[str, np.ndarray]:
        r"""Reads the interactions of some shards, one after the other.

        Args:
            shards: The shards. (default: all)

        Returns:
            Users, items, labels and, if the split needed them, times, **[E]** each.

        Raises:
            ValueError: If a shard is damaged or belongs to other data.
        """
        shards = self.shards if shards is None else shards
        out: dict[str, np.ndarray] = {}
        start, rows = 0, sum(shard.rows for shard in shards)
        for shard in shards:
            for name, x in self._columns(shard).items():
                if name not in out:
                    out[name] = np.empty(rows, x.dtype)
                out[name][start : start + shard.rows] = x
            start += shard.rows
        return out

    def scan(self) -> Scan:
        r"""Reads all interactions, one shard after the other, and keeps the held-out ones.

        Raises:
            ValueError: If a shard is damaged or belongs to other data.
        """
        users, items = (np.zeros(size, np.int64) for size in (self.num_users, self.num_items))
        first, kept = np.full(self.num_items, np.inf), []
        for shard in self.shards:
            columns = self._columns(shard)
            train = columns['label'] == TRAIN
            user, item = columns['user'][train], columns['item'][train]
            users[shard.first : shard.last] = np.bincount(
                user - shard.first, minlength=shard.last - shard.first
            )
            items += np.bincount(item, minlength=self.num_items)
            if self.has_time:
                np.minimum.at(first, item, columns[TIME][train].astype(np.float64))
            kept.append({name: x[~train] for name, x in columns.items()})
        held_out = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
        training = Training(LazyEdges(int(users.sum()), self._training), users, items)
        times = np.where(np.isinf(first), np.nan, first) if self.has_time else None
        return Scan(held_out, training, times)

    def read_training(self, first: int, last: int, size: int) -> np.ndarray:
        r"""Reads the training interactions of the users :obj:`first, ..., last - 1`,
        **[2, E]**.

        Args:
            first: The first user.
            last: The user after the last one.
            size: Number of the interactions.
        """
        out, start = np.empty((2, size), np.int64), 0
        for shard in self.shards:
            if shard.first < last and first < shard.last:
                columns = self._columns(shard)
                own = (columns['user'] >= first) & (columns['user'] < last)
                own &= columns['label'] == TRAIN
                end = start + int(np.count_nonzero(own))
                for row, name in zip(out, COLUMNS):
                    row[start:end] = columns[name][own]
                start = end
        return out

    def _training(self, side: int) -> Iterator[Tensor]:
        r"""Users (0) or items (1) of the training interactions of each shard."""
        name = COLUMNS[side]
        for shard in self.shards:
            columns = _read(osp.join(self.folder, shard.file), [name, 'label'])
            yield torch.from_numpy(columns[name][columns['label'] == TRAIN].astype(np.int64))

    def _columns(self, shard: Shard) -> dict[str, np.ndarray]:
        path = osp.join(self.folder, shard.file)
        columns = _read(path, [*COLUMNS, TIME] if self.has_time else COLUMNS)
        if content_hash(columns) != shard.hash:
            raise ValueError(f"'{path}' does not match '{META}': expected other interactions")
        return columns

    def check(self, options: Mapping[str, Any]) -> None:
        r"""Checks that options do not ask for other interactions than the shards
        hold.

        Args:
            options: Values of options by name, see :func:`arguments`.

        Raises:
            ValueError: If an option differs from that of the shards.
        """
        for name, default in FIXED.items():
            value, known = options[name], self.options.get(name)
            if value not in (default, known) and (name, value) != ('split', self.rule):
                raise ValueError(
                    f"'{self.folder}': '{name}' is {value!r}, but the shards were made with "
                    f'{known!r}; write them again (motor-geo shard)'
                )

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.name}, {len(self.shards)} shards, '
            f'{self.num_users} users, {self.rows} interactions)'
        )


def arguments(columns: Mapping[str, str | None], options: Options, reindex: bool) -> dict[str, Any]:
    r"""Arguments of :class:`~motor_geo.data.TableDataset` by name, as they are kept with
    shards.

    Args:
        columns: Names of columns that the user specified, by role.
        options: The options.
        reindex: Whether integer ids with gaps are renumbered.
    """
    names = {**columns, 'event_column': columns['event']}
    return {**names, **options._asdict(), 'reindex': reindex}


def find_shards(path: str) -> Shards | None:
    r"""Returns the shards in a folder, or :obj:`None` if it is another data set.

    Args:
        path: The folder.

    Raises:
        ValueError: If the folder is damaged.
    """
    folder = osp.abspath(osp.expanduser(path))
    meta = osp.join(folder, META)
    has_shards = osp.lexists(osp.join(folder, FILE.format(0)))
    if not osp.isfile(meta):
        if has_shards:
            raise ValueError(f"'{meta}' is missing; expected it beside '{FILE.format(0)}'")
        return None
    try:
        content = read_json(meta)
    except ValueError as error:
        if has_shards:
            raise ValueError(f"'{meta}' is damaged: {one_line(error)}") from error
        return None
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        return None
    return Shards(folder, content)


def hash_of(shards: Sequence[Shard], ids: Mapping[str, str], options: Mapping[str, Any]) -> str:
    r"""Returns a hash of the hashes of all shards."""
    entries = [[shard.first, shard.last, shard.rows, shard.hash] for shard in shards]
    return fingerprint(entries, dict(ids), dict(options))


def content_hash(columns: Mapping[str, np.ndarray]) -> str:
    r"""Returns a hash of the interactions of a shard."""
    return fingerprint({name: np.asarray(x) for name, x in columns.items()})


def _read(path: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    check_file(path, 'a Parquet file of a data set in shards')
    with parquet_errors(path), open_parquet(path) as file:
        table = file.read(columns=list(names))
        return {name: table[name].to_numpy() for name in names}
