r"""Finds the ids of a data set in a stream of its rows, and counts the rows of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from motor_geo.data.datasets.columns import Columns, Ids, question_numbers
from motor_geo.data.datasets.filters import (
    Options,
    check_events,
    check_labels,
    check_left,
    kept_rows,
)
from motor_geo.data.datasets.item_index import index_ids, index_items
from motor_geo.data.datasets.layouts import Block, Source, raw_ids
from motor_geo.data.datasets.progress import Bars
from motor_geo.data.datasets.split import split_interactions

MERGE = 2**18  # Ids to collect before they are merged.


@dataclass
class FirstRows(Columns):
    r"""Distinct ids in place of rows, and where each of them occurs first."""

    paths: Sequence[str] = ()
    file: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    line: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def locate(self, row: int) -> str:
        return f"'{self.paths[self.file[row]]}', {self.unit} {self.line[row]}"


class Distinct:
    r"""Collects the distinct ids of a column from blocks, with the number of kept
    rows and the place of the first row of each.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.size = 0

    def add(self, ids: Ids, keep: np.ndarray, lines: np.ndarray, file: int) -> None:
        r"""Adds the ids of a block.

        Args:
            ids: The ids.
            keep: Which rows the filters keep, **[n]**.
            lines: Place of each row in its file, **[n]**.
            file: Number of the file.
        """
        values, codes = ids
        first = np.empty(len(values), np.int64)
        first[codes[::-1]] = lines[::-1]  # The last assignment, of the first row, stays.
        count = np.bincount(codes[keep], minlength=len(values))
        self.parts.append((values, count, first, np.full(len(values), file, np.int16)))
        self.size += len(values)
        if self.size > 2 * max(len(self.parts[0][0]), MERGE):
            self.merge()

    def merge(self) -> tuple[np.ndarray, ...]:
        r"""Returns the sorted ids, and the number of rows, the first line and the
        first file of each.
        """
        columns = [list(column) for column in zip(*self.parts)]
        values = columns[0]
        if len({x.dtype.kind for x in values}) > 1:
            values = [x.astype(str) for x in values]
        count, line, file = (np.concatenate(column) for column in columns[1:])
        merged, first, place = np.unique(
            np.concatenate(values), return_index=True, return_inverse=True
        )
        total = np.zeros(len(merged), np.int64)
        np.add.at(total, place, count)
        self.parts = [(merged, total, line[first], file[first])]
        self.size = len(merged)
        return self.parts[0]

    def table(self, name: str, source: Source, unit: str) -> tuple[FirstRows, np.ndarray]:
        r"""Returns the ids as a table of one row each, and their numbers of kept rows."""
        values, count, line, file = self.merge()
        ids = {name: Ids(values, np.arange(len(values)))}
        table = FirstRows(source.path, ids, unit=unit, paths=source.files, file=file, line=line)
        question_numbers(table, name)
        return table, count


@dataclass
class Index:
    r"""What the first pass finds.

    Args:
        rows: Number of rows before any filter.
        values: Sorted raw ids in the files of users and items, by role.
        position: The index of each of them.
        ids: The id of each index.
        counts: Number of kept rows of each index.
        items_file: The list of items, if there is one.
        has_features: Whether items have features.
        labeled: Whether the files specify the splits.
        time: Data type of times, if the split reads them.
    """

    rows: int
    values: dict[str, np.ndarray]
    position: dict[str, np.ndarray]
    ids: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    items_file: str | None
    has_features: bool
    labeled: bool
    time: np.dtype | None

    @property
    def degree(self) -> np.ndarray:
        r"""Number of kept rows of each user, **[M]**."""
        return self.counts['user']

    def find(self, role: str, ids: Ids) -> np.ndarray:
        r"""Returns the index of the id of each row of a block.

        Raises:
            ValueError: If an id is new.
        """
        values = self.values[role]
        found = ids.values if ids.values.dtype.kind == values.dtype.kind else ids.values.astype(str)
        place = np.minimum(np.searchsorted(values, found), len(values) - 1)
        if (values[place] != found).any():
            raise ValueError(_changed(role))
        return self.position[role][place][ids.codes]


def _changed(role: str) -> str:
    return f"the column of '{role}' changed while it was read; expected the same rows twice"


def read_index(
    source: Source,
    blocks: Iterable[Block],
    options: Options,
    features: Mapping[str, np.ndarray],
    reindex: bool,
    item: str | None,
    bars: Bars,
) -> Index:
    r"""Finds all ids and counts their rows."""
    found = {role: Distinct() for role in ('user', 'item', 'event')}
    rows, unit, names = 0, 'line', dict[str, str]()
    types: list[np.dtype] = []
    with bars('ids', None, 'row') as bar:
        for block in blocks:
            table, names = block.table, block.names
            if len(table) == 0:
                continue
            check_labels(table, names)
            keep, unit = kept_rows(table, names, options), table.unit
            lines = np.arange(len(table)) if table.lines is None else table.lines
            for role in found.keys() & names.keys():
                found[role].add(table.ids[names[role]], keep, lines, block.file)
            if 'time' in names:
                types.append(table.numbers[names['time']].dtype)
            rows += len(table)
            bar.update(len(table))
    if rows == 0:
        raise ValueError(f"'{source.path}' holds no interactions; expected at least one")
    if 'event' in names and options.event is not None:
        events, _ = found['event'].table(names['event'], source, unit)
        check_events(events, names['event'], options.event)
    if options.split in ('temporal', 'global_time') and not types:
        none = np.empty(0, np.int64)
        split_interactions(none, none, options.split)  # Raises the error.
    users, user_rows = found['user'].table(names['user'], source, unit)
    items, item_rows = found['item'].table(names['item'], source, unit)
    check_left(source.name, int(user_rows.sum()), options)
    user_ids, user = index_ids(users, names['user'], reindex)
    item_ids, position, items_file = index_items(
        items, names['item'], source.folder, features, reindex, item
    )
    user_ids = raw_ids(source.folder, 'user', user_ids)
    if items_file is None:
        item_ids = raw_ids(source.folder, 'item', item_ids)
    return Index(
        rows,
        {'user': users.ids[names['user']].values, 'item': items.ids[names['item']].values},
        {'user': user, 'item': position},
        {'user': user_ids, 'item': item_ids},
        {
            'user': _at(user, user_rows, len(user_ids)),
            'item': _at(position, item_rows, len(item_ids)),
        },
        items_file,
        bool(features),
        'label' in names,
        np.result_type(*types) if types else None,
    )


def _at(position: np.ndarray, count: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros(size, np.int64)
    out[position] = count
    return out
