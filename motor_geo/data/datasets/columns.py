r"""Converts the bytes of a column to ids, numbers and times."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.data.datasets.messages import clipped

MINUS, ZERO = 45, 48
MOST_BYTES = 1000  # Maximum length of an id.
FRACTION = re.compile(r'\.(\d+)')  # Fraction of a second.
MAX_DIGITS = 18  # All integers of this length fit into 64 bits.


class Ids(NamedTuple):
    r"""A column of ids. :obj:`values[codes]` restores the column."""

    values: np.ndarray  # Sorted distinct ids, integers or text, [U]
    codes: np.ndarray  # Position in `values` of each row, [n]


@dataclass
class Columns:
    r"""The columns of a file, and where each row is in it."""

    path: str
    ids: dict[str, Ids] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    unit: str = 'line'
    lines: np.ndarray | None = None
    parts: Sequence[Columns] = ()  # The tables that this one was stacked from.

    def place(self, row: int) -> str:
        r"""Describes where a row is: by its line in a text file (the header is
        line 1), or else by its index (from 0).
        """
        if self.lines is not None:
            row = int(self.lines[row])
        elif self.unit == 'line':
            row = row + 2
        return f'{self.unit} {row}'

    def locate(self, row: int) -> str:
        r"""Describes a row in messages: the file and the place in it."""
        for part in self.parts:
            if row < len(part):
                return part.locate(row)
            row -= len(part)
        return f"'{self.path}', {self.place(row)}"

    def __len__(self) -> int:
        columns = [*(ids.codes for ids in self.ids.values()), *self.numbers.values()]
        return len(columns[0]) if columns else 0

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns the columns as tensors. Text becomes its code points."""
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


class Fields(NamedTuple):
    r"""The raw fields of a column. Each one consists of the bytes
    :obj:`buffer[start:start + length]`.
    """

    buffer: np.ndarray
    start: np.ndarray
    length: np.ndarray
    rows: np.ndarray | None = None  # The field of each row, if each distinct field occurs once.

    @classmethod
    def from_list(cls, values: list[str]) -> Fields:
        encoded = [value.encode() for value in values]
        length = np.fromiter(map(len, encoded), np.int64, len(encoded))
        start = np.cumsum(length) - length
        return cls(np.frombuffer(b''.join(encoded) + b'\n', np.uint8), start, length)

    def byte(self, position: int) -> np.ndarray:
        r"""Returns the byte at :obj:`position` of each field, or zero beyond
        its end.
        """
        last = len(self.buffer) - 1
        found = self.buffer[np.minimum(self.start + position, last)]
        return np.where(position < self.length, found, 0).astype(np.uint8)

    def text(self, row: int) -> str:
        start, length = int(self.start[row]), int(self.length[row])
        return clipped(self.buffer[start : start + length].tobytes().decode(errors='replace'))

    def integers(self) -> tuple[np.ndarray, np.ndarray]:
        r"""Returns the value of each field, and whether the field is an integer
        in canonical form. Fields with a leading zero, a plus sign, a blank or
        more than 18 digits do not count as integers.
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
        r"""Returns the fields as a fixed-width array of bytes.

        Raises:
            ValueError: If the array would exceed 4 GB.
        """
        width = max(int(self.length.max(initial=0)), 1)
        if width * len(self.start) > 2**32:
            raise ValueError(f'text of up to {width} bytes per id is too long')
        result = np.empty((len(self.start), width), np.uint8)
        for position in range(width):
            result[:, position] = self.byte(position)
        return result.view(f'S{width}').ravel()


Column = Fields | np.ndarray


def as_ids(table: Columns, name: str, column: Column) -> Ids:
    r"""Converts a column to ids: integers if all of them are spelled as
    integers, and text otherwise.

    Args:
        table: The table, for messages.
        name: Name of the column.
        column: The column.

    Raises:
        ValueError: If an id is empty, too long, not valid UTF-8, or neither an
            integer nor text.
    """
    if isinstance(column, np.ndarray):
        if column.dtype.kind not in 'iu':
            raise ValueError(
                f"'{table.path}': ids '{name}' are {column.dtype}; expected integers or text"
            )
        if column.dtype == np.uint64 and column.max(initial=0) > np.iinfo(np.int64).max:
            values, codes = np.unique(column, return_inverse=True)  # Text, as in text files.
            order = np.argsort(values.astype(str))
            return Ids(values.astype(str)[order], np.argsort(order)[codes])
        return distinct(column.astype(np.int64, copy=False))
    if (column.length == 0).any():
        empty = column.length == 0
        row = int((empty if column.rows is None else empty[column.rows]).argmax())
        raise ValueError(f"{table.locate(row)}: expected an id in column '{name}', found nothing")
    long = column.length > MOST_BYTES  # Every id takes as much memory as the longest one.
    if long.any():
        row = int((long if column.rows is None else long[column.rows]).argmax())
        raise ValueError(
            f"{table.locate(row)}: expected at most {MOST_BYTES} bytes in column '{name}', "
            f'found an id of {int(column.length.max())}'
        )
    if column.rows is not None:
        values, codes = as_ids(table, name, column._replace(rows=None))
        return Ids(values, codes[column.rows])
    value, valid = column.integers()
    if valid.all():
        return distinct(value)
    try:
        values, codes = np.unique(column.strings(), return_inverse=True)
        return Ids(np.char.decode(values, 'utf-8'), codes)
    except UnicodeDecodeError as error:
        raise ValueError(f"'{table.path}': ids '{name}' are not UTF-8: {error}") from error
    except ValueError as error:
        raise ValueError(f"'{table.path}': column '{name}': {error}") from error


def distinct(value: np.ndarray) -> Ids:
    r"""Returns the distinct values of an integer column, and the position of
    each row in them.
    """
    low = int(value.min())
    size = int(value.max()) - low + 1
    if size > 4 * len(value):
        return Ids(*np.unique(value, return_inverse=True))
    seen = np.zeros(size, bool)  # Avoids sorting.
    place = value - low if low else value
    seen[place] = True
    return Ids(np.flatnonzero(seen) + low, (np.cumsum(seen) - 1)[place])


def question_numbers(table: Columns, name: str) -> None:
    r"""Warns about text ids that look like integers, such as :obj:`12.0`.

    Args:
        table: The table.
        name: Name of a column of ids.

    Raises:
        ValueError: If :obj:`12` is also an id.
    """
    values, codes = table.ids[name]
    if values.dtype.kind != 'U':
        return
    short = np.char.strip(values)
    bare = np.char.rstrip(short, '0')
    decimal = np.char.endswith(bare, '.')
    odd = np.flatnonzero(decimal | (short != values))
    whole = np.where(decimal[odd], np.char.rstrip(bare[odd], '.'), short[odd])
    number = np.char.isdigit(np.char.lstrip(whole, '-'))
    odd, whole = odd[number], whole[number]
    if len(odd) == 0:
        return
    place = np.minimum(np.searchsorted(values, whole), len(values) - 1)
    both = np.flatnonzero(values[place] == whole)
    if len(both):
        one, other = place[both[0]], odd[both[0]]
        rows = [int((codes == code).argmax()) for code in (one, other)]
        raise ValueError(
            f"{table.locate(rows[1])}: '{name}' is '{values[other]}', and '{values[one]}' in "
            f'{table.locate(rows[0])}; expected a single spelling of each id'
        )
    first = int((codes == odd[0]).argmax())
    warnings.warn(
        f"{table.locate(first)}: '{name}' is '{values[odd[0]]}', which looks like the integer "
        f'{whole[0]}; a column with such an id is read as text.',
        stacklevel=4,
    )


def as_numbers(table: Columns, name: str, column: Column, kind: str) -> np.ndarray:
    r"""Converts a column to finite numbers.

    Args:
        table: The table, for messages.
        name: Name of the column.
        column: The column.
        kind: :obj:`'integer'`, :obj:`'number'` or :obj:`'time'`.

    Returns:
        The numbers, **[n]**. Dates become microseconds since 1970.

    Raises:
        ValueError: If a field is not of this kind.
    """
    expected = {
        'integer': 'an integer',
        'number': 'a number',
        'time': 'a number or a date such as 2020-01-31 10:00:00',
    }[kind]
    rows = None if isinstance(column, np.ndarray) else column.rows
    if isinstance(column, np.ndarray):
        if kind == 'integer' and column.dtype.kind not in 'iu':
            raise ValueError(f"'{table.path}': column '{name}' is {column.dtype}, not {expected}")
        valid = np.isfinite(column)
        value, text = column, lambda row: str(column[row])
    else:
        value, valid = column.integers()
        text = column.text
        if kind == 'time' and not valid.all() and is_date(column).any():
            value, valid = _dates(column)
        elif kind != 'integer' and not valid.all():
            value = np.array([_as_float(entry) for entry in column.strings().tolist()])
            valid = np.isfinite(value)
    if not valid.all():
        row = int((valid if rows is None else valid[rows]).argmin())
        found = text(row if rows is None else int(rows[row]))
        raise ValueError(
            f"{table.locate(row)}: expected {expected} in column '{name}', found '{found}'"
        )
    return value if rows is None else value[rows]


def stack(path: str, tables: Sequence[Columns]) -> Columns:
    r"""Concatenates the rows of several tables with the same columns.

    Args:
        path: Path of the result, for messages.
        tables: The tables.
    """
    out = Columns(path, parts=tables)
    for name in tables[0].ids:
        columns = [table.ids[name] for table in tables]
        values = [ids.values for ids in columns]
        if len({x.dtype.kind for x in values}) > 1:
            values = [x.astype(str) for x in values]
        merged, index = np.unique(np.concatenate(values), return_inverse=True)
        parts = np.split(index, np.cumsum([len(x) for x in values])[:-1])
        codes = [part[ids.codes] for part, ids in zip(parts, columns)]
        out.ids[name] = Ids(merged, np.concatenate(codes))
    for name in tables[0].numbers:
        out.numbers[name] = np.concatenate([table.numbers[name] for table in tables])
    return out


def _as_float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float('nan')


def is_date(column: Fields) -> np.ndarray:
    r"""Returns which fields begin like an ISO date."""
    dashed = (column.byte(4) == MINUS) & (column.byte(7) == MINUS)
    return dashed & (column.length >= 10)


def _dates(column: Fields) -> tuple[np.ndarray, np.ndarray]:
    r"""Converts ISO dates to microseconds since 1970. Also returns which fields
    are dates.
    """
    valid = is_date(column)
    text = column.strings()
    local = np.char.rstrip(text, b'Z')  # Times without a time zone count as UTC.
    if not (np.char.count(local, b'-') > 2).any() and not (np.char.count(local, b'+')).any():
        try:
            return np.where(valid, local, b'1970-01-01').astype('M8[us]').astype(np.int64), valid
        except ValueError:
            pass
    values, codes = np.unique(text, return_inverse=True)
    found = [_as_date(value.decode(errors='replace')) for value in values.tolist()]
    good = np.array([entry is not None for entry in found])
    return np.array([entry or 0 for entry in found])[codes], valid & good[codes]


def _as_date(text: str) -> int | None:
    # Python 3.10 parses fractions of a second with exactly three or six digits only.
    text = FRACTION.sub(lambda found: f'.{found[1][:6]:0<6}', text)
    try:
        date = datetime.fromisoformat(f'{text[:-1]}+00:00' if text.endswith('Z') else text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    since = date - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
