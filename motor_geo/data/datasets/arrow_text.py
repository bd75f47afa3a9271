r"""Splits large text files with Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motor_geo.data.datasets.columns import Column, Fields

BLOCK = 2**24  # Bytes that Arrow processes at a time.


def split_with_arrow(
    raw: bytes, offset: int, delimiter: str, columns: Mapping[str, int], repeated: set[str]
) -> dict[str, Column] | None:
    r"""Splits a text file into the fields of its columns. Columns with repeated
    values come as distinct values with the index of each row.

    Returns :obj:`None` if :obj:`pyarrow` is missing, if the file is 2 GB or
    larger, or if Arrow would not return the fields exactly as in the file.

    Args:
        raw: The content of the file, which ends with a line feed.
        offset: Offset of the first row, in bytes.
        delimiter: The character between fields.
        columns: Position of each column in a row, by name.
        repeated: Names of the columns with repeated values.
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
    chunks: dict[str, list[Any]] = {name: [] for name in columns}
    try:
        batches = csv.open_csv(
            pa.BufferReader(pa.py_buffer(memoryview(raw)[offset:])),
            csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names),
            csv.ParseOptions(
                delimiter=delimiter, quote_char=False, double_quote=False, ignore_empty_lines=False
            ),
            csv.ConvertOptions(
                column_types=used, include_columns=list(used), strings_can_be_null=False
            ),
        )
        for batch in batches:
            for name, position in columns.items():
                column = batch.column(names[position])
                chunks[name].append(column.dictionary_encode() if name in repeated else column)
    except pa.ArrowInvalid:  # The slower reader raises an error that names the line.
        return None
    out: dict[str, Column] = {}
    for name in columns:
        column = pa.chunked_array(chunks.pop(name))
        if name in repeated:
            parts = column.unify_dictionaries().chunks
            rows = np.concatenate([part.indices.to_numpy() for part in parts])
            out[name] = _fields(parts[0].dictionary)._replace(rows=rows)
        else:
            out[name] = _fields(column.combine_chunks())
    return out


def _fields(column: Any) -> Fields:
    r"""Returns the fields of an Arrow string array without copying bytes."""
    _, offsets, content = column.buffers()
    first = column.offset
    place = np.frombuffer(offsets, np.int32)[first : first + len(column) + 1].astype(np.int64)
    # If all fields are empty, Arrow has no buffer or an empty one.
    empty = content is None or content.size == 0
    buffer = np.zeros(1, np.uint8) if empty else np.frombuffer(content, np.uint8)
    return Fields(buffer, place[:-1], np.diff(place))
