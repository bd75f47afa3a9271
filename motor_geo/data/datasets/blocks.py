r"""Reads tables block by block, for interactions that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from motor_geo.data.datasets.columns import Column, Columns, Fields, is_date
from motor_geo.data.datasets.reader import (
    BATCH,
    BOM,
    arrow_columns,
    check_text,
    convert,
    kinds_of,
    open_parquet,
    open_text,
    parquet_errors,
    select_columns,
    split_header,
    split_text,
)
from motor_geo.utils.files import check_file

SIZE = 2**23  # Bytes of text in a block.
#: The columns of a block by name.
Raw = dict[str, Column]


def read_blocks(
    path: str,
    ids: Sequence[str],
    integers: Sequence[str] = (),
    numbers: Sequence[str] = (),
    optional: Sequence[str] = (),
    times: Sequence[str] = (),
) -> Iterator[Columns]:
    r"""Yields consecutive rows of the file that
    :func:`~motor_geo.data.datasets.reader.read_table` reads at once, with the
    numbers of their lines. Ids are integers if all ids of their *block* are.

    Args:
        path: The file.
        ids: Names of the columns of ids.
        integers: Names of the columns of integers.
        numbers: Names of the columns of finite numbers.
        optional: Names of the columns that may be missing.
        times: Names of the columns of numbers or ISO dates.

    Raises:
        ValueError: As :func:`~motor_geo.data.datasets.reader.read_table`.
    """
    check_file(path, 'a table')
    kinds = kinds_of(integers, numbers, times)
    names = [*ids, *kinds]
    if path.endswith('.parquet'):
        blocks = _parquet(path, names, optional, ids)
    else:
        blocks = _text(path, names, optional, set(names) - set(times))
    dated: dict[str, bool] = {}
    for table, raw in blocks:
        for name in set(times) & raw.keys():
            _check_dates(table, name, raw[name], dated)
        convert(table, raw, ids, kinds)
        yield table


def _check_dates(table: Columns, name: str, column: Column, dated: dict[str, bool]) -> None:
    r"""Checks that all blocks have dates, or that none has: numbers and dates
    cannot be compared.
    """
    found = is_date(column) if isinstance(column, Fields) else np.zeros(1, bool)
    if bool(found.any()) != dated.setdefault(name, bool(found.any())):
        place = column.text(int(found.argmax())) if isinstance(column, Fields) else 'a number'
        raise ValueError(
            f'{table.locate(0)}: expected {"dates" if dated[name] else "numbers"} in column '
            f"'{name}' as in the rows before, found '{place}'"
        )


def _text(
    path: str, names: Sequence[str], optional: Sequence[str], repeated: set[str]
) -> Iterator[tuple[Columns, Raw]]:
    header, line, empty = b'', 1, True
    columns: dict[str, int] = {}
    for block in _lines(path):
        if b'\0' in block or not columns:
            check_text(path, block.rstrip(b'\r\n'), names)
        if not columns:
            header, _, block = block.partition(b'\n')
            found, delimiter = split_header(path, header)
            columns = select_columns(path, found, names, optional)
            width = len(found)
        if not block:
            continue
        empty = False
        count = block.count(b'\n')
        table = Columns(path, lines=np.arange(line + 1, line + 1 + count))
        raw = header + b'\n' + block
        yield table, split_text(table, raw, delimiter, columns, width, repeated, line)
        line += count
    if not columns:
        check_text(path, b'', names)
    if empty:
        raise ValueError(f"'{path}' holds only a header; expected at least one row below it")


def _lines(path: str) -> Iterator[bytes]:
    r"""Yields blocks of whole lines, without a byte order mark and empty lines at
    the end. Line feeds in quotes do not end a line.
    """
    rest, first, quoted = b'', True, False
    with open_text(path) as file:
        while chunk := file.read(SIZE):
            rest += chunk
            if first:
                rest = rest.removeprefix(BOM)
                if b'\n' not in rest:
                    continue
                quoted = b'\t' not in rest[: rest.index(b'\n')]
                first = False
            end = rest.rstrip(b'\r\n').rfind(b'\n') + 1
            while quoted and end and rest.count(b'"', 0, end) % 2:
                end = rest.rfind(b'\n', 0, end - 1) + 1
            if end:
                yield rest[:end]
                rest = rest[end:]
    rest = rest.removeprefix(BOM) if first else rest
    rest = rest.rstrip(b'\r\n')
    if rest:
        yield rest + b'\n'


def _parquet(
    path: str, names: Sequence[str], optional: Sequence[str], ids: Sequence[str]
) -> Iterator[tuple[Columns, Raw]]:
    import pyarrow as pa

    with parquet_errors(path), open_parquet(path) as file:
        columns = list(select_columns(path, file.schema_arrow.names, names, optional))
        if file.metadata.num_rows == 0:
            arrow_columns(Columns(path), file.read(columns=columns), columns)
        start = 0
        for batch in file.iter_batches(BATCH, columns=columns):
            table, content = Columns(path), pa.Table.from_batches([batch])
            if len(batch):
                raw = arrow_columns(table, content, columns, ids, start)
                table.lines = np.arange(start, start + len(batch))
                yield table, raw
            start += len(batch)
