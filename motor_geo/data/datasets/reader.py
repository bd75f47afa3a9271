r"""Strict reading of delimited text and Parquet columns.

Text is split and converted with array operations on its bytes, in seconds for
tens of millions of fields; nothing is rounded, trimmed or guessed on the way.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.utils.cache import cached, fingerprint

NEWLINE, RETURN, MINUS, ZERO = 10, 13, 45, 48
MAX_DIGITS = 18  # Fits into 64 bits.
CACHED_SIZE = 2**22  # Text files of fewer bytes are read in no time.


class Ids(NamedTuple):
    r"""A column of ids: :obj:`values[codes]` is the column."""

    values: np.ndarray  # Sorted distinct ids, integers or text, [U]
    codes: np.ndarray  # [n]


@dataclass
class Table:
    r"""Columns of a file, and the place of each row in it."""

    path: str
    ids: dict[str, Ids] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    unit: str = 'line'
    lines: np.ndarray | None = None

    def locate(self, row: int) -> str:
        r"""Names a row in messages: the file and the line (text, the header
        is line 1) or the row (Parquet, from 0).
        """
        if self.lines is not None:
            row = int(self.lines[row])
        elif self.unit == 'line':
            row = row + 2
        return f"'{self.path}', {self.unit} {row}"

    def state_dict(self) -> dict[str, Tensor]:
        r"""The columns as tensors, texts as their code points."""
        state = {f'numbers.{name}': torch.from_numpy(x) for name, x in self.numbers.items()}
        for name, (values, codes) in self.ids.items():
            if values.dtype.kind == 'U':
                values = values.view(np.int32).reshape(len(values), -1)
            state[f'values.{name}'] = torch.from_numpy(values)
            state[f'codes.{name}'] = torch.from_numpy(codes)
        return state if self.lines is None else {**state, 'lines': torch.from_numpy(self.lines)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for key, tensor in state.items():
            kind, _, name = key.partition('.')
            x = tensor.numpy()
            if kind == 'numbers':
                self.numbers[name] = x
            elif kind == 'values':
                values = x.view(f'U{x.shape[1]}').ravel() if x.ndim == 2 else x
                self.ids[name] = Ids(values, state[f'codes.{name}'].numpy())
            elif kind == 'lines':
                self.lines = x


class _Fields(NamedTuple):
    r"""Raw fields of a column: bytes :obj:`buffer[start:start + length]`."""

    buffer: np.ndarray
    start: np.ndarray
    length: np.ndarray

    @classmethod
    def from_list(cls, values: list[str]) -> _Fields:
        encoded = [value.encode() for value in values]
        length = np.fromiter(map(len, encoded), np.int64, len(encoded))
        start = np.cumsum(length) - length
        return cls(np.frombuffer(b''.join(encoded) + b'\n', np.uint8), start, length)

    def byte(self, position: int) -> np.ndarray:
        r"""The bytes at :obj:`position`, zero behind the end of a field."""
        last = len(self.buffer) - 1
        found = self.buffer[np.minimum(self.start + position, last)]
        return np.where(position < self.length, found, 0).astype(np.uint8)

    def text(self, row: int) -> str:
        start, length = int(self.start[row]), int(self.length[row])
        return self.buffer[start : start + length].tobytes().decode(errors='replace')

    def integers(self) -> tuple[np.ndarray, np.ndarray]:
        r"""Values, and where a field is an integer in its usual spelling: a
        leading zero, a sign, a blank or more than 18 digits are text.
        """
        value = np.zeros(len(self.start), np.int64)
        valid = np.zeros(len(self.start), bool)
        for length in range(1, min(int(self.length.max(initial=0)), MAX_DIGITS + 1) + 1):
            rows = np.flatnonzero(self.length == length)
            start = self.start[rows]
            digit = self.buffer[start] - np.uint8(ZERO)  # Wraps around: <= 9 is a digit.
            negative = self.buffer[start] == MINUS
            good = negative | (digit <= 9)
            number = np.where(negative, 0, digit).astype(np.int64)
            if length == 1:
                good &= ~negative
            else:
                good &= (digit > 0) & ~(negative & (self.buffer[start + 1] == ZERO))
            if length > MAX_DIGITS:
                good &= negative
            for position in range(1, length):
                digit = self.buffer[start + position] - np.uint8(ZERO)
                good &= digit <= 9
                number = number * 10 + digit
            value[rows], valid[rows] = np.where(negative, -number, number), good
        return value, valid

    def strings(self) -> np.ndarray:
        r"""The fields as a fixed-width array of bytes."""
        width = max(int(self.length.max(initial=0)), 1)
        if width * len(self.start) > 2**32:
            raise ValueError(f'text of up to {width} bytes per id is too long')
        result = np.empty((len(self.start), width), np.uint8)
        for position in range(width):
            result[:, position] = self.byte(position)
        return result.view(f'S{width}').ravel()


def read_table(
    path: str,
    ids: Sequence[str],
    integers: Sequence[str] = (),
    numbers: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> Table:
    r"""Reads columns of a comma- or tab-separated file with a header, or of a
    Parquet file. What was read from a large text file is kept on disk, keyed by
    the content of the file.

    An id column is integer if every id is spelled as one (:obj:`7`, but not
    :obj:`007`), and text otherwise. Double quotes have a meaning in
    comma-separated files only.

    Args:
        path: The file; :obj:`.parquet` needs :obj:`pyarrow`.
        ids: Columns of ids.
        integers: Columns of integers.
        numbers: Columns of finite numbers.
        optional: Those among the columns that may be missing.

    Raises:
        ValueError: If the file is empty or malformed; the message names the
            file, the line and what was expected.
    """
    table = Table(path)
    if path.endswith('.parquet') or os.path.getsize(path) < CACHED_SIZE:
        return _read(table, ids, integers, numbers, optional)

    def compute() -> dict[str, Tensor]:
        return _read(Table(path), ids, integers, numbers, optional).state_dict()

    content = np.fromfile(path, np.uint8)
    key = fingerprint('read_table.1', content, ids, integers, numbers, optional)
    table.load_state_dict(cached('table', key, compute))
    return table


def _read(
    table: Table,
    ids: Sequence[str],
    integers: Sequence[str],
    numbers: Sequence[str],
    optional: Sequence[str],
) -> Table:
    read = _read_parquet if table.path.endswith('.parquet') else _read_text
    columns = read(table, [*ids, *integers, *numbers], optional)
    for name in ids:
        if name in columns:
            table.ids[name] = _as_ids(table, name, columns[name])
    for name in (*integers, *numbers):
        if name in columns:
            table.numbers[name] = _as_numbers(table, name, columns[name], name in integers)
    return table


def _select(
    path: str, header: list[str], names: Sequence[str], optional: Sequence[str]
) -> dict[str, int]:
    for name in names:
        if header.count(name) > 1:
            raise ValueError(f"'{path}': column '{name}' occurs {header.count(name)} times")
        if name not in header and name not in optional:
            raise ValueError(f"'{path}': expected a column '{name}', found the columns {header}")
    return {name: header.index(name) for name in names if name in header}


def _read_text(
    table: Table, names: list[str], optional: Sequence[str]
) -> dict[str, _Fields | np.ndarray]:
    path = table.path
    with open(path, 'rb') as file:
        raw = file.read().removeprefix(b'\xef\xbb\xbf').rstrip(b'\r\n')
    if not raw.strip():
        raise ValueError(f"'{path}' is empty; expected a header with the columns {names}")
    if b'\0' in raw:
        raise ValueError(f"'{path}': expected UTF-8 text, found binary data")
    raw += b'\n'
    end = raw.index(b'\n')
    line = raw[:end].decode(errors='replace').rstrip('\r')
    delimiter = '\t' if '\t' in line else ','
    quoted = delimiter == ',' and b'"' in raw
    header = next(csv.reader([line])) if quoted else line.split(delimiter)
    columns = _select(path, header, names, optional)
    if end + 1 == len(raw):
        raise ValueError(f"'{path}' holds a header only; expected at least one row below it")
    if quoted:
        return _split_quoted(table, raw, columns, len(header))
    return _split_plain(table, raw, end + 1, ord(delimiter), columns, len(header))


def _split_plain(
    table: Table, raw: bytes, offset: int, delimiter: int, columns: dict[str, int], width: int
) -> dict[str, _Fields | np.ndarray]:
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
        name: _Fields(buffer, starts[:, c].copy(), stops[:, c] - starts[:, c])
        for name, c in columns.items()
    }


def _split_quoted(
    table: Table, raw: bytes, columns: dict[str, int], width: int
) -> dict[str, _Fields | np.ndarray]:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{table.path}': expected UTF-8 text, {error}") from error
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    values: dict[str, list[str]] = {name: [] for name in columns}
    lines, last = [], 0
    try:
        for row in reader:
            first, last = last + 1, reader.line_num
            if len(row) != width:
                raise ValueError(
                    f"'{table.path}', line {first}: expected {width} fields as in the header, "
                    f'found {len(row)}'
                )
            lines.append(first)
            for name, c in columns.items():
                values[name].append(row[c])
    except csv.Error as error:
        raise ValueError(f"'{table.path}', line {reader.line_num}: {error}") from error
    table.lines = np.array(lines[1:])
    return {name: _Fields.from_list(column[1:]) for name, column in values.items()}


def _read_parquet(
    table: Table, names: list[str], optional: Sequence[str]
) -> dict[str, _Fields | np.ndarray]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            f"'{table.path}' needs pyarrow to be read: pip install pyarrow"
        ) from error

    path, table.unit = table.path, 'row'
    try:
        with pq.ParquetFile(path) as file:
            selected = _select(path, file.schema_arrow.names, names, optional)
            content = file.read(columns=list(selected))
    except pa.ArrowInvalid as error:
        raise ValueError(f"'{path}' cannot be read as Parquet: {error}") from error
    if content.num_rows == 0:
        raise ValueError(f"'{path}' holds no rows; expected at least one")
    columns: dict[str, _Fields | np.ndarray] = {}
    for name in selected:
        column, kind = content[name], content[name].type
        if column.null_count:
            row = int(column.is_null().to_numpy().argmax())
            raise ValueError(f"{table.locate(row)}: expected a value of '{name}', found none")
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_timestamp(kind):
            column, kind = column.cast(pa.int64()), pa.int64()
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            columns[name] = _Fields.from_list(column.to_pylist())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            columns[name] = column.to_numpy()
        else:
            raise ValueError(f"'{path}': column '{name}' is {kind}; expected integers or text")
    return columns


def _as_ids(table: Table, name: str, column: _Fields | np.ndarray) -> Ids:
    if isinstance(column, np.ndarray):
        if column.dtype.kind not in 'iu':
            raise ValueError(
                f"'{table.path}': ids '{name}' are {column.dtype}; expected integers or text"
            )
        return _distinct(column.astype(np.int64))
    if (column.length == 0).any():
        row = int((column.length == 0).argmax())
        raise ValueError(f"{table.locate(row)}: expected an id in column '{name}', found nothing")
    value, valid = column.integers()
    if valid.all():
        return _distinct(value)
    try:
        values, codes = np.unique(column.strings(), return_inverse=True)
        return Ids(np.char.decode(values, 'utf-8'), codes)
    except UnicodeDecodeError as error:
        raise ValueError(f"'{table.path}': ids '{name}' are not UTF-8: {error}") from error
    except ValueError as error:
        raise ValueError(f"'{table.path}': column '{name}': {error}") from error


def _distinct(value: np.ndarray) -> Ids:
    low = int(value.min())
    size = int(value.max()) - low + 1
    if size > 4 * len(value):
        return Ids(*np.unique(value, return_inverse=True))
    seen = np.zeros(size, bool)  # Without sorting.
    seen[value - low] = True
    return Ids(np.flatnonzero(seen) + low, (np.cumsum(seen) - 1)[value - low])


def _as_numbers(table: Table, name: str, column: _Fields | np.ndarray, integer: bool) -> np.ndarray:
    kind = 'an integer' if integer else 'a number'
    if isinstance(column, np.ndarray):
        if integer and column.dtype.kind not in 'iu':
            raise ValueError(f"'{table.path}': column '{name}' is {column.dtype}, not {kind}")
        valid = np.isfinite(column)
        value, text = column, lambda row: str(column[row])
    else:
        value, valid = column.integers()
        text = column.text
        if not integer and not valid.all():
            value = np.array([_as_float(entry) for entry in column.strings().tolist()])
            valid = np.isfinite(value)
    if not valid.all():
        row = int(valid.argmin())
        raise ValueError(
            f"{table.locate(row)}: expected {kind} in column '{name}', found '{text(row)}'"
        )
    return value


def _as_float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float('nan')
