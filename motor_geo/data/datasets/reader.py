r"""A strict reader for the columns of delimited text and Parquet files.

It splits and converts text with array operations on bytes, which takes seconds
for tens of millions of fields. It never rounds, trims or guesses a value.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from motor_geo.data.datasets.arrow_text import split_with_arrow
from motor_geo.data.datasets.columns import (
    Column,
    Columns,
    Fields,
    as_ids,
    as_numbers,
    question_numbers,
)
from motor_geo.data.datasets.messages import clipped, listed
from motor_geo.utils.cache import cached, fingerprint
from motor_geo.utils.errors import one_line
from motor_geo.utils.extras import needs
from motor_geo.utils.files import check_file
from motor_geo.utils.memory import physical_memory

NEWLINE, RETURN = 10, 13
CACHED_SIZE = 2**22  # Smaller text files are read too fast to need the cache.
BATCH = 2**18  # Number of rows of a Parquet file to read at a time.
PACKED = ('.gz', '.zst')
BOM = b'\xef\xbb\xbf'


def read_table(
    path: str,
    ids: Sequence[str],
    integers: Sequence[str] = (),
    numbers: Sequence[str] = (),
    optional: Sequence[str] = (),
    times: Sequence[str] = (),
) -> Columns:
    r"""Reads columns of a comma- or tab-separated file with a header, or of a
    Parquet file. The columns of a large text file are cached on disk, keyed by
    the content of the file.

    A column of ids contains integers if every id is spelled as one (:obj:`7`,
    but not :obj:`007`), and text otherwise. Double quotes are special in
    comma-separated files only.

    Args:
        path: The file. :obj:`.parquet` and :obj:`.zst` need :obj:`pyarrow`.
            Text may be compressed (:obj:`.gz`, :obj:`.zst`).
        ids: Names of the columns of ids.
        integers: Names of the columns of integers.
        numbers: Names of the columns of finite numbers.
        optional: Names of the columns that may be missing.
        times: Names of the columns of numbers or ISO dates.

    Raises:
        FileNotFoundError: If the file is missing.
        ImportError: If the file needs :obj:`pyarrow`, which is not installed.
        ValueError: If the file is empty or malformed; the message names the
            file, the line and what was expected.
        MemoryError: If the file does not fit into memory.
    """
    check_file(path, 'a table')
    table = Columns(path)
    kinds = kinds_of(integers, numbers, times)
    if path.endswith('.parquet'):
        for name, column in _read_parquet(table, [*ids, *kinds], optional, ids):
            convert(table, {name: column}, ids, kinds)
    elif os.path.getsize(path) < CACHED_SIZE:
        convert(table, _read_text(table, ids, list(kinds), optional), ids, kinds)
    else:

        def compute() -> dict[str, Tensor]:
            table = Columns(path)
            convert(table, _read_text(table, ids, list(kinds), optional, times), ids, kinds)
            return table.state_dict()

        def fits(state: dict[str, Tensor]) -> bool:
            known = Columns(path)
            known.load_state_dict(state)
            given = [name for name in (*ids, *kinds) if name not in optional]
            return all(name in known.ids or name in known.numbers for name in given)

        parts = ['read_table.1', np.fromfile(path, np.uint8), ids, integers, numbers, optional]
        key = fingerprint(*parts, *([times] if times else []))
        del parts
        table.load_state_dict(cached('table', key, compute, fits))
    for name in table.ids:
        question_numbers(table, name)
    return table


def kinds_of(
    integers: Sequence[str], numbers: Sequence[str], times: Sequence[str]
) -> dict[str, str]:
    r"""Returns the kind of each column by name, see :func:`as_numbers`."""
    kinds = {name: 'integer' for name in integers} | {name: 'number' for name in numbers}
    return kinds | {name: 'time' for name in times}


def convert(
    table: Columns, columns: dict[str, Column], ids: Sequence[str], kinds: dict[str, str]
) -> None:
    r"""Converts raw columns to ids and numbers and adds them to a table.

    Args:
        table: The table to add the columns to.
        columns: Raw columns by name. Removes those that it has converted, to
            save memory.
        ids: Names of the columns of ids.
        kinds: Kinds of the other columns by name, see :func:`as_numbers`.

    Raises:
        ValueError: If a value is malformed.
    """
    for name in ids:
        if name in columns:
            table.ids[name] = as_ids(table, name, columns.pop(name))
    for name, kind in kinds.items():
        if name in columns:
            table.numbers[name] = as_numbers(table, name, columns.pop(name), kind)


def read_header(path: str) -> list[str]:
    r"""Reads the names of the columns of a file. The list is empty if the file
    has no header; :meth:`read_table` then raises an error.

    Args:
        path: The file.
    """
    check_file(path, 'a table')
    if path.endswith('.parquet'):
        with parquet_errors(path), open_parquet(path) as file:
            return file.schema_arrow.names
    start = read_bytes(path, 2**16)
    if b'\n' not in start and len(start) == 2**16:
        start = read_bytes(path, 2**24)
    line = start.removeprefix(BOM).split(b'\n')[0]
    broken = b'\0' in line or b'\r' in line.rstrip(b'\r') or line[:1] in (b'{', b'[')
    return [] if broken or not line.strip() else split_header(path, line)[0]


def split_header(path: str, raw: bytes) -> tuple[list[str], str]:
    r"""Returns the names of the columns in a header, and the character between them."""
    line = raw.decode(errors='replace').rstrip('\r')
    delimiter = '\t' if '\t' in line else ','
    quoted = delimiter == ',' and '"' in line
    if not quoted:
        return line.split(delimiter), delimiter
    try:
        return next(csv.reader([line])), delimiter
    except (csv.Error, StopIteration) as error:
        raise ValueError(f"'{path}', line 1: {one_line(error)}; expected a header") from error


def read_bytes(path: str, size: int = -1) -> bytes:
    r"""Reads the uncompressed content of a file, or its first bytes.

    Args:
        path: The file.
        size: Number of bytes to read; a negative number reads all of them.

    Raises:
        OSError: If the file cannot be read.
        ImportError: If the file needs :obj:`pyarrow`, which is not installed.
        ValueError: If a compressed file is damaged.
        MemoryError: If the content does not fit into memory; the message names
            the file.
    """
    check_file(path, 'a table or lists')
    with open_text(path) as file:
        return _read_all(file) if size < 0 and path.endswith(PACKED) else file.read(size)


@contextmanager
def open_text(path: str) -> Iterator[Any]:
    r"""Opens the uncompressed content of a file, and adds the name of the file to
    errors.

    Args:
        path: The file.
    """
    try:
        with _open(path) as file:
            yield file
    except MemoryError:
        raise MemoryError(f"'{path}' does not fit into memory") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"'{path}' is truncated or damaged: {error}") from error
    except OSError as error:
        if path.endswith('.zst') and error.errno is None:
            raise ValueError(f"'{path}' is truncated or damaged: {error}") from error
        raise


def _read_all(file: Any) -> bytes:
    r"""Reads a compressed file. Its content may be far larger than the file, so
    reading stops before it fills the memory.
    """
    left = physical_memory()
    blocks = []
    while block := file.read(min(left, 2**26)):
        blocks.append(block)
        left -= 2 * len(block)  # Joining the blocks copies them.
        if left <= 0:
            raise MemoryError
    return blocks[0] if len(blocks) == 1 else b''.join(blocks)


def _open(path: str) -> Any:
    if path.endswith('.gz'):
        return gzip.open(path, 'rb')
    if not path.endswith('.zst'):
        return open(path, 'rb')
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ImportError(needs(f"Reading '{path}'", 'pyarrow', extra='parquet')) from error
    return pyarrow.input_stream(path, compression='zstd')


def select_columns(
    path: str, header: list[str], names: Sequence[str], optional: Sequence[str]
) -> dict[str, int]:
    r"""Returns the positions of columns by name, without optional ones that are missing."""
    for name in names:
        if header.count(name) > 1:
            raise ValueError(f"'{path}': column '{name}' occurs {header.count(name)} times")
        if name not in header and name not in optional:
            raise ValueError(
                f"'{path}': expected a column '{name}', found the columns {listed(header)}"
            )
    return {name: header.index(name) for name in names if name in header}


def _read_text(
    table: Columns,
    ids: Sequence[str],
    others: Sequence[str],
    optional: Sequence[str],
    times: Sequence[str] = (),
) -> dict[str, Column]:
    path, names = table.path, [*ids, *others]
    raw = read_bytes(path).removeprefix(BOM).rstrip(b'\r\n')
    check_text(path, raw, names)
    raw += b'\n'
    end = raw.index(b'\n')
    header, delimiter = split_header(path, raw[:end])
    columns = select_columns(path, header, names, optional)
    if end + 1 == len(raw):
        raise ValueError(f"'{path}' holds only a header; expected at least one row below it")
    return split_text(table, raw, delimiter, columns, len(header), set(names) - set(times))


def check_text(path: str, raw: bytes, names: Sequence[str]) -> None:
    r"""Checks that the content of a file, or its beginning, may be a table.

    Args:
        path: The file, for messages.
        raw: The content without empty lines at the end.
        names: Names of the columns to read.

    Raises:
        ValueError: If it is empty, binary or JSON, or without line feeds.
    """
    if not raw.strip():
        raise ValueError(f"'{path}' is empty; expected a header with the columns {names}")
    if b'\0' in raw:
        raise ValueError(f"'{path}': expected UTF-8 text, found binary data")
    if b'\n' not in raw and b'\r' in raw:
        raise ValueError(
            f"'{path}': lines end with a carriage return alone; expected line feeds (the command "
            r"tr '\r' '\n' converts them)"
        )
    if raw[:1] in (b'{', b'[') and not any(name.encode() in raw[:4096] for name in names):
        raise ValueError(
            f"'{path}' holds JSON; expected a table with the columns {names} (lists of items by "
            f"user are read from 'train.json', 'val.json' and 'test.json')"
        )


def split_text(
    table: Columns,
    raw: bytes,
    delimiter: str,
    columns: dict[str, int],
    width: int,
    repeated: set[str],
    line: int = 1,
) -> dict[str, Column]:
    r"""Splits text into the fields of its columns.

    Args:
        table: The table, for messages. It gets the numbers of the lines if
            fields may contain line feeds.
        raw: A header and rows below it, which end with a line feed.
        delimiter: The character between fields.
        columns: Position of each column in a row, by name.
        width: Number of fields in a row.
        repeated: Names of the columns with repeated values.
        line: Number of the line above the first row.

    Raises:
        ValueError: If a row has another number of fields.
    """
    if delimiter == ',' and b'"' in raw:
        return _split_quoted(table, raw, columns, width, line - 1)
    start = raw.index(b'\n') + 1
    if len(raw) >= CACHED_SIZE:
        fields = split_with_arrow(raw, start, delimiter, columns, repeated)
        if fields is not None:
            return fields
    return _split_plain(table, raw, start, ord(delimiter), columns, width)


def _split_plain(
    table: Columns, raw: bytes, offset: int, delimiter: int, columns: dict[str, int], width: int
) -> dict[str, Column]:
    buffer = np.frombuffer(raw, np.uint8)[offset:]
    stop = np.flatnonzero((buffer == delimiter) | (buffer == NEWLINE))
    line_end = np.flatnonzero(buffer[stop] == NEWLINE)
    counts = np.diff(line_end, prepend=-1)
    if (counts != width).any():
        row = int((counts != width).argmax())
        raise ValueError(
            f'{table.locate(row)}: expected {width} fields as in the header, found {counts[row]}'
        )
    start = np.concatenate([[0], stop[:-1] + 1])
    last = stop[line_end]
    stop[line_end] -= (buffer[last - 1] == RETURN) & (last > start[line_end])
    starts, stops = start.reshape(-1, width), stop.reshape(-1, width)
    return {
        name: Fields(buffer, starts[:, c].copy(), stops[:, c] - starts[:, c])
        for name, c in columns.items()
    }


def _split_quoted(
    table: Columns, raw: bytes, columns: dict[str, int], width: int, before: int
) -> dict[str, Column]:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{table.path}': expected UTF-8 text, {error}") from error
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    values: dict[str, list[str]] = {name: [] for name in columns}
    lines, last = [], before
    try:
        for row in reader:
            first, last = last + 1, before + reader.line_num
            if len(row) != width:
                raise ValueError(
                    f"'{table.path}', line {first}: expected {width} fields as in the header, "
                    f'found {len(row)}'
                )
            lines.append(first)
            for name, c in columns.items():
                values[name].append(row[c])
    except csv.Error as error:
        raise ValueError(f"'{table.path}', line {before + reader.line_num}: {error}") from error
    table.lines = np.array(lines[1:])
    return {name: Fields.from_list(column[1:]) for name, column in values.items()}


def open_parquet(path: str) -> Any:
    r"""Opens a Parquet file whose pages are verified by their checksums, if it has any."""
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ImportError(needs(f"Reading '{path}'", 'pyarrow', extra='parquet')) from error
    return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def parquet_errors(path: str) -> Iterator[None]:
    r"""Adds the name of the file to errors raised by Arrow."""
    try:
        yield
    except (ImportError, PermissionError):
        raise
    except MemoryError as error:
        raise MemoryError(f"'{path}' does not fit into memory") from error
    except Exception as error:
        reason = one_line(error)[:200]
        if reason.startswith(f"'{path}'"):
            raise
        raise ValueError(f"'{path}' cannot be read as Parquet: {reason}") from error


def _read_parquet(
    table: Columns, names: Sequence[str], optional: Sequence[str], ids: Sequence[str]
) -> Iterator[tuple[str, Column]]:
    r"""Yields one column after the other, to save memory."""
    path = table.path
    with parquet_errors(path), open_parquet(path) as file:
        for name in select_columns(path, file.schema_arrow.names, names, optional):
            yield name, _read_column(table, file, name, ids)


def _read_column(table: Columns, file: Any, name: str, ids: Sequence[str]) -> Column:
    import pyarrow as pa

    size, schema = file.metadata.num_rows, file.schema_arrow
    kind = schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)) or size == 0:
        return arrow_columns(table, file.read(columns=[name]), [name], ids)[name]
    out, start = np.empty(0), 0
    for batch in file.iter_batches(BATCH, columns=[name]):
        content = pa.Table.from_batches([batch])
        values = arrow_columns(table, content, [name], ids, start)[name]
        if start == 0:
            out = np.empty(size, np.asarray(values).dtype)
        out[start : start + len(batch)] = values
        start += len(batch)
    return out


def arrow_columns(
    table: Columns, content: Any, names: Sequence[str], ids: Sequence[str] = (), first: int = 0
) -> dict[str, Column]:
    r"""Extracts columns of a :class:`pyarrow.Table`.

    Args:
        table: The table, for messages.
        content: The Arrow table.
        names: Names of the columns.
        ids: Names of the columns of ids. Each distinct text in them is read once.
        first: Row of the table in which the content starts.

    Raises:
        ValueError: If the table is empty, or a column lacks values or has the
            wrong type.
    """
    import pyarrow as pa

    table.unit = 'row'
    if content.num_rows == 0:
        raise ValueError(f"'{table.path}' holds no rows; expected at least one")
    columns: dict[str, Column] = {}
    for name in names:
        column, kind = content[name], content[name].type
        if column.null_count:
            row = first + int(column.is_null().to_numpy().argmax())
            raise ValueError(f"{table.locate(row)}: expected a value in '{name}', found none")
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_date32(kind):
            column, kind = column.cast(pa.int32()), pa.int32()
        elif pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
            column, kind = column.cast(pa.int64()), pa.int64()
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            columns[name] = column.to_numpy()
        elif kind in (pa.string(), pa.large_string()) or 'string_view' in str(kind):
            rows = None
            if name in ids:
                column = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
                column, rows = column.dictionary, column.indices.to_numpy()
            columns[name] = Fields.from_list(column.to_pylist())._replace(rows=rows)
        else:
            raise ValueError(
                f"'{table.path}': column '{name}' is {clipped(kind)}; expected integers or text"
            )
    return columns
