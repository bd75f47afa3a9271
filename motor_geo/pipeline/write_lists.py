r"""Writes files of recommendations, block by block."""

from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from motor_geo.pipeline.recommend import TRAINED, Recommendations, Request
from motor_geo.utils.extras import needs
from motor_geo.utils.files import atomic_write, writing

Columns = dict[str, Any]  # The columns of a block of rows.


def write(
    recommendations: Recommendations | Request,
    path: str,
) -> int:
    r"""Writes one row per user and rank (userID, rank, itemID, score) as
    :obj:`.csv`, :obj:`.tsv` or :obj:`.parquet`. If some users have no trained
    vector, the column :obj:`source` says where each list comes from. The column
    :obj:`why` holds reasons, if there are any. A request is computed and
    written block by block to save memory.

    Args:
        recommendations: The lists, or the request to compute them from.
        path: The file.

    Returns:
        The number of rows.

    Raises:
        ValueError: If the file extension is unknown, or pyarrow is missing.
    """
    ending = check_ending(path)
    if isinstance(recommendations, Request):
        named = any(group.source != TRAINED for group in recommendations.groups)
        indices = ending == '.parquet' and recommendations.explainer is None
        blocks = of_indices if indices else of_request
        columns = blocks(recommendations, named)
    else:
        source = recommendations.source
        named = source is not None and bool((source != TRAINED).any())
        columns = iter([rows(recommendations, named)])
    write_columns = _write_parquet if ending == '.parquet' else _write_text
    with writing(path), atomic_write(path) as temporary:
        return write_columns(columns, temporary, '\t' if ending == '.tsv' else ',')


def rows(block: Recommendations, named: bool) -> Columns:
    r"""Returns the rows of a block of lists by column."""
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
    if block.why is not None:
        out['why'] = block.why[valid]
    return out


def of_request(request: Request, named: bool) -> Iterator[Columns]:
    r"""Yields rows by column, block by block. The first block has no rows, and
    defines the columns.
    """
    none = np.empty((0, request.k))
    words = None if request.explainer is None else none.astype(object)
    ids = request.groups[0].ids[:0] if request.groups else none[:, 0]
    item = request.item_ids[none.astype(int)]
    source = np.empty(0, 'U10')
    yield rows(Recommendations(ids, item, none.astype(np.float32), source, words), named)
    for block in request.lists():
        yield rows(block, named)


def of_indices(request: Request, named: bool) -> Iterator[Columns]:
    r"""Yields the same blocks as Arrow arrays, without Python objects per row."""
    import pyarrow

    yield {key: pyarrow.array(x) for key, x in next(of_request(request, named)).items()}
    items = pyarrow.array(request.item_ids)
    users: dict[str, Any] = {}
    for group, part, item, score in request.blocks():
        if group.source not in users:
            users[group.source] = pyarrow.array(group.ids)
        value, index = score.numpy(), item.numpy()
        valid = np.isfinite(value)
        row, rank = valid.nonzero()
        columns: Columns = {
            'userID': users[group.source].take(pyarrow.array(row + part.start)),
            'rank': rank + 1,
            'itemID': items.take(pyarrow.array(index[valid])),
            'score': value[valid],
        }
        if named:
            columns['source'] = np.full(len(row), group.source)
        yield columns


def _write_text(blocks: Iterator[Columns], path: str, delimiter: str) -> int:
    total = 0
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator='\n')
        for number, columns in enumerate(blocks):
            if number == 0:
                writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values())))
            total += len(columns['rank'])
    return total


def _write_parquet(blocks: Iterable[Columns], path: str, delimiter: str) -> int:
    import pyarrow
    import pyarrow.parquet

    total, writer = 0, None
    try:
        for columns in blocks:
            table = pyarrow.table(columns)
            if writer is None:
                writer = pyarrow.parquet.ParquetWriter(path, table.schema)
            if len(table) > 0:
                writer.write_table(table.cast(writer.schema))
            total += len(table)
    finally:
        if writer is not None:
            writer.close()
    return total


def check_ending(path: str) -> str:
    r"""Checks and returns the extension of an output file.

    Raises:
        ValueError: If the extension is unknown, or pyarrow is missing.
    """
    ending = osp.splitext(path)[1]
    if ending not in ('.csv', '.tsv', '.parquet'):
        raise ValueError(f"'{path}' must end in .csv, .tsv or .parquet")
    if ending == '.parquet':
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ValueError(needs('Writing .parquet', 'pyarrow', extra='parquet')) from error
    return ending
