r"""Maps raw ids to the indices of users and items."""

from __future__ import annotations

import os.path as osp
import warnings
from collections.abc import Mapping

import numpy as np

from motor_geo.data.datasets.columns import Columns
from motor_geo.data.datasets.messages import clipped
from motor_geo.data.datasets.names import find_columns
from motor_geo.data.datasets.reader import read_header, read_table

MAX_MISSING = 1e-3  # Released files lack a few ids. The indices of the others must not shift.


def index_ids(table: Columns, column: str, reindex: bool) -> tuple[np.ndarray, np.ndarray]:
    r"""Indexes ids that no other file refers to.

    Args:
        table: The interactions.
        column: Their column of ids.
        reindex: Whether to renumber integer ids with gaps.

    Returns:
        The raw ids **[M]**, and the index of each row **[E]**.

    Raises:
        ValueError: If integer ids are negative or have too many gaps.
    """
    values, codes = table.ids[column]
    if reindex or values.dtype.kind != 'i':
        return values, codes
    size = int(values[-1]) + 1
    missing = size - len(values)
    if values[0] < 0 or missing > MAX_MISSING * size:
        code = int((values != np.arange(len(values))).argmax())
        problem = '' if values[code] < 0 else f', but no row has the id {code}'
        place = table.locate(int((codes == code).argmax()))
        raise ValueError(
            f"{place}: '{column}' is {values[code]}{problem}; "
            f'expected ids from 0 without gaps (reindex=True renumbers ids).'
        )
    if missing:
        warnings.warn(
            f"'{table.path}': {missing} of the ids '{column}' from 0 to {size - 1} have no row; "
            f'they stay, without interactions (reindex=True removes them).',
            stacklevel=3,
        )
    return np.arange(size), codes if missing == 0 else values[codes]


def index_by_row(
    table: Columns, column: str, rows: int, path: str
) -> tuple[np.ndarray, np.ndarray]:
    r"""Indexes item ids that are rows of the feature matrices.

    Args:
        table: The interactions.
        column: Their column of items.
        rows: Number of rows of the feature matrices.
        path: A feature file, for messages.

    Returns:
        The item ids **[N]**, and the item index of each row **[E]**.

    Raises:
        ValueError: If an id is not the number of a row.
    """
    values, codes = table.ids[column]
    if values.dtype.kind != 'i':
        text = np.array([not _is_integer(value) for value in values])
        row = int(text[codes].argmax())
        raise ValueError(
            f"{table.locate(row)}: '{column}' is the text '{clipped(values[codes[row]])}', so its "
            f"row in {path} is unknown; expected integers from 0, or a file 'items.tsv' in the "
            f"same folder with a column '{column}' that holds the id of each feature row in order."
        )
    outside = (values < 0) | (values >= rows)
    if outside.any():
        row = int(outside[codes].argmax())
        raise ValueError(
            f"{table.locate(row)}: '{column}' is {values[codes[row]]}, but {path} only has rows "
            f'for items 0 to {rows - 1}.'
        )
    same = len(values) == 0 or values[-1] == len(values) - 1  # No gaps: saves a copy.
    return np.arange(rows), codes if same else values[codes]


def _is_integer(text: str) -> bool:
    return text.removeprefix('-').isdecimal() and text == str(int(text)) and len(text) <= 18


def find_items(folder: str) -> str | None:
    r"""Returns the file of items in a folder, :obj:`items.tsv`, :obj:`.csv` or
    :obj:`.parquet`, or :obj:`None` if there is none.

    Raises:
        ValueError: If there are several.
    """
    found = [osp.join(folder, f'items.{kind}') for kind in ('tsv', 'csv', 'parquet')]
    found = [path for path in found if osp.lexists(path)]
    if len(found) > 1:
        raise ValueError(f"'{folder}': expected one file of items, found {found}.")
    return found[0] if found else None


def index_items(
    table: Columns,
    column: str,
    folder: str,
    features: Mapping[str, np.ndarray],
    reindex: bool,
    name: str | None,
) -> tuple[np.ndarray, np.ndarray, str | None]:
    r"""Indexes item ids by the list of items in a folder, or else by the rows of
    features, or else by themselves.

    Args:
        table: The interactions.
        column: Their column of items.
        folder: The folder.
        features: The features by modality, **[N, d]**.
        reindex: Whether to renumber integer ids with gaps.
        name: Name of the column of ids in the list, if known.

    Returns:
        The item ids **[N]**, the item index of each row **[E]**, and the file
        with the list of items, if there is one.

    Raises:
        ValueError: If an id is unknown, or features do not match the list.
    """
    items_file = find_items(folder)
    if items_file is not None:
        item_ids, codes = index_by_list(table, column, items_file, name)
    elif features:
        place = f"'{osp.join(folder, next(iter(features)))}_feat.npy'"
        rows = len(next(iter(features.values())))
        item_ids, codes = index_by_row(table, column, rows, place)
    else:
        item_ids, codes = index_ids(table, column, reindex)
    for modality, x in features.items():
        if len(x) != len(item_ids):
            raise ValueError(
                f"'{osp.join(folder, modality)}_feat.npy': expected {len(item_ids)} rows (one "
                f"per row of '{items_file}'), got {len(x)}."
            )
    return item_ids, codes, items_file


def check_distinct(items: Columns, name: str) -> None:
    r"""Checks that a list names each item once.

    Args:
        items: The list.
        name: Name of its column of ids.

    Raises:
        ValueError: If an item is repeated; the message names the line.
    """
    known = items.ids[name]
    if len(known.values) < len(known.codes):
        first = np.unique(known.codes, return_index=True)[1]
        row = int(np.setdiff1d(np.arange(len(known.codes)), first, assume_unique=True)[0])
        raise ValueError(
            f"{items.locate(row)}: expected each '{name}' once, got "
            f"'{clipped(known.values[known.codes[row]])}' again."
        )


def index_by_list(
    table: Columns, column: str, items: str | Columns, name: str | None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Indexes item ids by looking them up in the list of items.

    Args:
        table: The interactions.
        column: Their column of items.
        items: The file of items, or its table.
        name: Name of the column of ids in the list, if known.

    Returns:
        The item ids **[N]**, and the item index of each row **[E]**.

    Raises:
        ValueError: If the list lacks an item, repeats one, or has no column of
            ids.
    """
    if isinstance(items, str):
        header = read_header(items)
        name = name if name in header else None
        if name is None and column in header:
            name = column
        name = find_columns(items, header, {'item': name}, ['item'])['item']
        items = read_table(items, [name])
    assert name is not None
    check_distinct(items, name)
    path, known = items.path, items.ids[name]
    values, codes = table.ids[column]
    names, item_ids = known.values, known.values[known.codes]
    if names.dtype.kind != values.dtype.kind:
        names, values = names.astype(str), values.astype(str)
    row_of = np.argsort(item_ids.astype(names.dtype))  # Row of each sorted name.
    names = np.sort(names)
    place = np.minimum(np.searchsorted(names, values), len(names) - 1)
    unknown = names[place] != values
    if unknown.any():
        row = int(unknown[codes].argmax())
        raise ValueError(
            f"{table.locate(row)}: '{column}' is '{clipped(values[codes[row]])}', which is not "
            f"among the {len(item_ids)} items of '{path}'."
        )
    return item_ids, row_of[place][codes]
