r"""Deals the rows of a data set out to one temporary file per shard."""

from __future__ import annotations

import os
import os.path as osp
from typing import Any

import numpy as np

from motor_geo.data.datasets.filters import Options, kept_rows
from motor_geo.data.datasets.layouts import Block, Source
from motor_geo.data.datasets.shards import TIME
from motor_geo.data.datasets.stream_index import Index


def cut(degree: np.ndarray, num_parts: int) -> np.ndarray:
    r"""Cuts users into consecutive parts with about the same number of
    interactions: no part exceeds its share by more than those of one user.

    Args:
        degree: Number of interactions of each user, **[M]**.
        num_parts: Number of parts :math:`P`.

    Returns:
        The first user of each part, and the number of users, **[P + 1]**.
    """
    total = np.cumsum(degree)
    goal = np.arange(1, num_parts) * int(total[-1]) / num_parts
    inner = np.searchsorted(total, goal, side='left') + 1
    return np.concatenate([[0], np.minimum(inner, len(degree)), [len(degree)]])


class Spill:
    r"""The rows of every shard in a temporary file, in the order of the source.

    Args:
        folder: The folder of the files.
        index: The ids.
        bounds: First user of each shard, see :func:`cut`.
    """

    def __init__(self, folder: str, index: Index, bounds: np.ndarray):
        self.folder, self.index, self.bounds = folder, index, bounds
        size = max(len(index.ids['user']), len(index.ids['item']))
        kind = np.int32 if size < 2**31 else np.int64
        fields: list[tuple[str, Any]] = [('user', kind), ('item', kind), ('label', np.int8)]
        self.dtype = np.dtype(fields + ([] if index.time is None else [(TIME, index.time)]))
        self.rows = 0
        os.makedirs(folder)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def add(self, block: Block, options: Options) -> None:
        r"""Writes the rows of a block to the shards of their users."""
        table, names = block.table, block.names
        self.rows += len(table)
        keep = np.flatnonzero(kept_rows(table, names, options))
        if len(keep) == 0:
            return
        rows = np.zeros(len(keep), self.dtype)
        for role in ('user', 'item'):
            rows[role] = self.index.find(role, table.ids[names[role]])[keep]
        for role in {'label', TIME} & names.keys():
            rows[role] = table.numbers[names[role]][keep]
        shard = np.searchsorted(self.bounds[1:], rows['user'], side='right')
        order = np.argsort(shard, kind='stable')
        rows, shard = rows[order], shard[order]
        ends = np.searchsorted(shard, np.arange(len(self)), side='right')
        for number in np.unique(shard).tolist():
            part = rows[ends[number - 1] if number else 0 : ends[number]]
            with open(self._path(number), 'ab') as file:
                part.tofile(file)

    def check(self, source: Source) -> None:
        r"""Checks that both passes saw the same number of rows."""
        if self.rows != self.index.rows:
            raise ValueError(
                f"'{source.path}' changed while it was read; expected {self.index.rows} rows, "
                f'found {self.rows}'
            )

    def read(self, number: int) -> np.ndarray:
        r"""Reads the rows of a shard."""
        path = self._path(number)
        return np.fromfile(path, self.dtype) if osp.exists(path) else np.empty(0, self.dtype)

    def write(self, number: int, rows: np.ndarray) -> None:
        r"""Replaces the rows of a shard."""
        rows.tofile(self._path(number))

    def _path(self, number: int) -> str:
        return osp.join(self.folder, f'{number}.rows')
