r"""Files of recommendations, written block by block."""

from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from motor_geo.pipeline.recommend import TRAINED, Recommendations, Request
from motor_geo.utils.files import atomic_write, writing

#: A further column of rows: from the users **[n]**, items and scores **[n, k]** of a block of
#: lists to an array **[n, k]** of texts.
Column = Callable[[Recommendations], np.ndarray]


def write(
    recommendations: Recommendations | Request | Iterable[Recommendations],
    path: str,
    more: Mapping[str, Column] | None = None,
) -> int:
    r"""Writes one row per user and rank (userID, rank, itemID, score) as
    :obj:`.csv`, :obj:`.tsv` or :obj:`.parquet`; returns the number of rows.
    Lists that do not come from training have their :obj:`source` in a further
    column, which is there if there is one. What is written is never in memory as
    a whole.

    Args:
        recommendations: Lists, or what they are computed from.
        path: The file.
        more: Further columns by name.

    Raises:
        ValueError: If the file has another ending.
    """
    if isinstance(recommendations, Request):
        named = any(group.source != TRAINED for group in recommendations.groups)
        blocks: Iterable[Recommendations] = recommendations.lists()
    else:
        one = isinstance(recommendations, Recommendations)
        blocks = [recommendations] if one else recommendations  # type: ignore[list-item,assignment]
        blocks = list(blocks)
        named = any(
            block.source is not None and (block.source != TRAINED).any() for block in blocks
        )
    ending, columns = check_ending(path), dict(more or {})
    with writing(path), atomic_write(path) as temporary:
        if ending == '.parquet':
            if isinstance(recommendations, Request) and not columns:
                return _write_indices(recommendations, temporary, named)
            return _write_parquet(blocks, temporary, columns, named)
        return _write_text(blocks, temporary, columns, named, '\t' if ending == '.tsv' else ',')


def rows(
    block: Recommendations, more: Mapping[str, Column], named: bool
) -> tuple[int, dict[str, np.ndarray]]:
    r"""The rows of a block of lists by column."""
    valid = np.isfinite(block.score)
    row, rank = valid.nonzero()
    out = {
        'userID': block.user[row],
        'rank': rank + 1,
        'itemID': block.item[valid],
        'score': block.score[valid],
    }
    if named:
        out['source'] = np.full(len(row), TRAINED) if block.source is None else block.source[row]
    return len(row), out | {name: column(block)[valid] for name, column in more.items()}


def _write_text(
    blocks: Iterable[Recommendations],
    path: str,
    more: Mapping[str, Column],
    named: bool,
    delimiter: str,
) -> int:
    total, names = 0, ['userID', 'rank', 'itemID', 'score', *(['source'] if named else []), *more]
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator='\n')
        writer.writerow(names)
        for block in blocks:
            count, columns = rows(block, more, named)
            writer.writerows(zip(*(column.tolist() for column in columns.values())))
            total += count
    return total


def _write_parquet(
    blocks: Iterable[Recommendations], path: str, more: Mapping[str, Column], named: bool
) -> int:
    import pyarrow
    import pyarrow.parquet

    total, writer = 0, None
    try:
        for block in blocks:
            count, columns = rows(block, more, named)
            table = pyarrow.table(columns)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            total += count
    finally:
        if writer is not None:
            writer.close()
    return total


def _write_indices(request: Request, path: str, named: bool) -> int:
    r"""Rows from indices, without a Python object for any of them."""
    import pyarrow
    import pyarrow.parquet

    items, users = pyarrow.array(request.item_ids), {}
    total, writer = 0, None
    try:
        for group, part, item, score in request.blocks():
            if group.source not in users:
                users[group.source] = pyarrow.array(group.ids)
            value, index = score.numpy(), item.numpy()
            valid = np.isfinite(value)
            row, rank = valid.nonzero()
            columns: dict[str, Any] = {
                'userID': users[group.source].take(pyarrow.array(row + part.start)),
                'rank': rank + 1,
                'itemID': items.take(pyarrow.array(index[valid])),
                'score': value[valid],
            }
            if named:
                columns['source'] = np.full(len(row), group.source)
            table = pyarrow.table(columns)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            total += len(row)
        if writer is None:
            columns = {
                'userID': pyarrow.array(np.array([], str)),
                'rank': np.empty(0, np.int64),
                'itemID': items[:0],
                'score': np.empty(0, np.float32),
            }
            pyarrow.parquet.write_table(pyarrow.table(columns), path)
    finally:
        if writer is not None:
            writer.close()
    return total


def check_ending(path: str) -> str:
    r"""The ending of an output file, if lists can be written to it."""
    ending = osp.splitext(path)[1]
    if ending not in ('.csv', '.tsv', '.parquet'):
        raise ValueError(f"'{path}' must end in .csv, .tsv or .parquet")
    if ending == '.parquet':
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ValueError("Writing .parquet needs 'pip install pyarrow'") from error
    return ending
