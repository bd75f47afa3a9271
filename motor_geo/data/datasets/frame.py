r"""Reads tables in memory: pandas and polars data frames, Arrow tables, and
dictionaries of arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motor_geo.data.datasets.columns import Column, Columns, Fields
from motor_geo.data.datasets.layouts import TIMED
from motor_geo.data.datasets.messages import clipped
from motor_geo.data.datasets.names import find_columns
from motor_geo.data.datasets.reader import arrow_columns, convert
from motor_geo.utils.extras import needs

KIND = {'label': 'integer', 'time': 'time', 'rating': 'number'}


def read_frame(
    frame: Any,
    name: str,
    split: str | None,
    given: Mapping[str, str | None],
    wanted: Sequence[str] = (),
    needed: Sequence[str] = ('user', 'item'),
) -> tuple[Columns, dict[str, str]]:
    r"""Reads the columns of a table in memory.

    Args:
        frame: The table.
        name: Its name in messages.
        split: The split rule, which may need times or labels.
        given: Names of columns that the user specified, by role.
        wanted: Roles of further required columns: :obj:`'rating'`,
            :obj:`'event'`.
        needed: Roles of the columns that are always required.

    Returns:
        The columns, and their names by role.

    Raises:
        ImportError: If the table needs :obj:`pyarrow`, which is not installed.
        ValueError: If a column is missing, lacks values or has the wrong type.
    """
    header, take = _open(frame)
    needed, optional = [*needed, *wanted], list[str]()
    if 'user' in needed:
        if split in (None, 'column'):
            (needed if split else optional).append('label')
        if split in TIMED:
            (needed if TIMED[split] == 'needed' else optional).append('time')
    names = find_columns(name, header, given, needed, optional)
    table = Columns(name, unit='row')
    columns = take(table, list(names.values()))
    sizes = {len(x if isinstance(x, np.ndarray) else x.start) for x in columns.values()}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(f"'{name}': expected columns of equal length, got {sorted(sizes)} rows")
    kinds = {column: KIND[role] for role, column in names.items() if role in KIND}
    convert(table, columns, [c for c in names.values() if c not in kinds], kinds)
    if 'user' in needed and split is None and 'label' not in names:
        if time := find_columns(name, header, given, [], ['time'], False).get('time'):
            warnings.warn(
                f"'{name}' holds times ('{clipped(time)}'), but no split was chosen: it is random "
                f"within each user; split='temporal' holds out each user's latest interactions, "
                f"and split='global_time' the latest interactions overall.",
                stacklevel=4,
            )
    return table, names


def _open(frame: Any) -> tuple[list[str], Any]:
    r"""Returns the names of the columns, and a function that extracts some of
    them.
    """
    if isinstance(frame, Mapping):
        header = list(frame)
    elif hasattr(frame, 'column_names') and hasattr(frame, '__getitem__'):  # Arrow.
        header = list(frame.column_names)
    elif hasattr(frame, 'columns') and hasattr(frame, '__getitem__'):  # pandas, polars.
        header = list(frame.columns)
    elif hasattr(frame, '__arrow_c_stream__'):
        try:
            import pyarrow
        except ImportError as error:
            what = f'Reading a {type(frame).__name__}'
            raise ImportError(needs(what, 'pyarrow', extra='parquet')) from error
        content = pyarrow.table(frame)
        return content.column_names, lambda table, names: arrow_columns(table, content, names)
    else:
        raise ValueError(
            f'Expected a pandas or polars data frame, an Arrow table or a dictionary of arrays, '
            f'got {clipped(type(frame).__name__)}'
        )

    def take(table: Columns, names: Sequence[str]) -> dict[str, Column]:
        return {column: _column(table, column, frame[column]) for column in names}

    return header, take


def _column(table: Columns, name: str, values: Any) -> Column:
    if hasattr(values, 'detach'):
        values = values.detach().cpu()
    array = np.asarray(values.to_numpy() if hasattr(values, 'to_numpy') else values)
    if array.ndim != 1:
        raise ValueError(
            f"'{table.path}': column '{name}' has the shape {list(array.shape)}; expected one "
            f'value per row'
        )
    if array.dtype.kind == 'M':
        if np.isnat(array).any():
            row = int(np.isnat(array).argmax())
            raise ValueError(f"{table.locate(row)}: expected a time in column '{name}', found none")
        return array.astype('M8[us]').astype(np.int64)
    if array.dtype.kind in 'iuf':
        return array
    if array.dtype.kind == 'S':
        array = np.char.decode(array, 'utf-8')
    entries = array.tolist()
    kinds = {type(entry) for entry in entries}
    if kinds == {str}:
        return Fields.from_list(entries)
    if kinds == {int}:
        return np.array(entries)
    main = str if str in kinds else int
    row = next((row for row, entry in enumerate(entries) if type(entry) is not main), 0)
    found = entries[row] if row < len(entries) else None
    raise ValueError(
        f"{table.locate(row)}: column '{name}' holds '{clipped(found)}' "
        f'({type(found).__name__}); expected {"text" if main is str else "integers"} in all rows'
    )
