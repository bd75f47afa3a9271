r"""Splitting large text files with Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motor_geo.data.datasets.columns import Column, Fields

BLOCK = 2**26  # Bytes that Arrow splits at a time.


def split_with_arrow(
    raw: bytes, offset: int, delimiter: str, columns: Mapping[str, int], ids: set[str]
) -> dict[str, Column] | None:
    r"""The fields of columns, and of ids their distinct values with an index;
    :obj:`None` without :obj:`pyarrow`, and for everything that is not plain:
    fields are as in the file, or they are not split here.

    Args:
        raw: The file, which ends with a line feed.
        offset: Where the first row starts.
        delimiter: The character between fields.
        columns: Position of each column.
        ids: Columns of ids.
    """
    try:
        import pyarrow as pa
        from pyarrow import csv
    except ImportError:
        return None
    if b'\r' in raw or len(raw) >= 2**31:
        return None
    width = raw.count(delimiter.encode(), 0, raw.index(b'\n')) + 1
    names = [str(position) for position in range(width)]
    used = {names[position]: pa.string() for position in columns.values()}
    try:
        table = csv.read_csv(
            pa.BufferReader(pa.py_buffer(memoryview(raw)[offset:])),
            csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names),
            csv.ParseOptions(
                delimiter=delimiter, quote_char=False, double_quote=False, ignore_empty_lines=False
            ),
            csv.ConvertOptions(
                column_types=used, include_columns=list(used), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:  # Said again, with the line, by the slower reader.
        return None
    out: dict[str, Column] = {}
    for name, position in columns.items():
        column = table[names[position]].combine_chunks()
        if name in ids:
            column = column.dictionary_encode()
            out[name] = _fields(column.dictionary)._replace(rows=column.indices.to_numpy())
        else:
            out[name] = _fields(column)
    return out


def _fields(column: Any) -> Fields:
    r"""The fields of an Arrow array of texts, without copying their bytes."""
    _, offsets, content = column.buffers()
    first = column.offset
    place = np.frombuffer(offsets, np.int32)[first : first + len(column) + 1].astype(np.int64)
    # If all fields are empty, there is no byte to look at.
    empty = content is None or content.size == 0
    buffer = np.zeros(1, np.uint8) if empty else np.frombuffer(content, np.uint8)
    return Fields(buffer, place[:-1], np.diff(place))
