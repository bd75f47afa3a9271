r"""Reads the supported layouts of interaction folders: one table, one table per
split (RecBole), or lists of items by user (LATTICE, MMSSL). Also maps item and
user numbers back to raw ids (MMRec).
"""

from __future__ import annotations

import json
import os
import os.path as osp
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from motor_geo.data.datasets.columns import Columns, Fields, Ids, as_ids, stack
from motor_geo.data.datasets.messages import clipped, listed
from motor_geo.data.datasets.names import STANDARD, find_columns
from motor_geo.data.datasets.reader import PACKED, read_bytes, read_header, read_table

KINDS = (('.inter',), ('.json',), ('.csv', '.tsv', '.parquet'))
PARTS = {'train': 0, 'valid': 1, 'val': 1, 'validation': 1, 'test': 2}
PART = re.compile(rf'(?:(?P<stem>.+)[._-])?(?P<part>{"|".join(PARTS)})')
CORE = '5-core'  # The subfolder in which LATTICE keeps the lists.
MAPPINGS = {'user': 'u_id_mapping.csv', 'item': 'i_id_mapping.csv'}
#: Split rules that use times, and whether they need them.
TIMED = {'temporal': 'needed', 'global_time': 'needed', 'leave_one_out': 'optional'}


class Source(NamedTuple):
    r"""The files of the interactions of a data set."""

    name: str
    folder: str  # The folder of the features and of the file of items.
    files: list[str]
    labels: list[int] | None = None  # The label of all rows of each file.

    @property
    def path(self) -> str:
        return self.files[0] if len(self.files) == 1 else osp.dirname(self.files[0])


def find_source(path: str) -> Source:
    r"""Finds the interactions in a folder. It looks for, in this order,

    1. :obj:`NAME.inter`, where :obj:`NAME` is the name of the folder, or the
       only :obj:`.inter` file,
    2. lists of items by user (:obj:`train.json` and others), and
    3. the only :obj:`.csv`, :obj:`.tsv` or :obj:`.parquet` file.

    One file per split, such as :obj:`NAME.train.inter`, may replace a single
    file.

    Args:
        path: The folder, or a file of interactions inside it.

    Raises:
        FileNotFoundError: If there are no interactions.
        ValueError: If the choice is ambiguous.
    """
    path = osp.abspath(osp.expanduser(path))
    if osp.isfile(path) and not path.endswith('.json'):
        folder = osp.dirname(path)
        return Source(osp.basename(folder), folder, [path])
    folder = osp.dirname(path) if osp.isfile(path) else path
    if not osp.isdir(folder):
        raise FileNotFoundError(f"'{path}' does not exist; expected a folder with NAME.inter.")
    name = osp.basename(folder)
    names = [
        entry
        for entry in sorted(os.listdir(folder))
        if not entry.startswith(('.', 'items.')) and entry not in MAPPINGS.values()
    ]
    for kinds in KINDS:
        found = {entry: stem for entry in names if (stem := _stem(entry, kinds)) is not None}
        parts = _parts(found)
        whole = [entry for entry in found if entry not in parts]
        own = [entry for entry in whole if found[entry] == name]
        if kinds == ('.json',):
            whole = own = []
        if len(own) == 1 or (len(whole) == 1 and not parts):
            return Source(name, folder, [osp.join(folder, (own or whole)[0])])
        if parts and not whole:
            files = [osp.join(folder, entry) for entry in parts]
            return Source(name, folder, files, list(parts.values()))
        if whole:
            raise ValueError(
                f"'{folder}' holds several files of interactions, {listed(list(found))}; expected "
                f"a single one, or one named '{name}{kinds[0]}'."
            )
    if osp.isfile(osp.join(folder, CORE, 'train.json')):
        return find_source(osp.join(folder, CORE))._replace(name=name, folder=folder)
    raise FileNotFoundError(
        f"'{folder}' holds no interactions; expected '{name}.inter' (or one .csv, .tsv or .parquet "
        f"file, or 'train.json' and 'test.json'), found {listed(names)}."
    )


def _stem(name: str, kinds: Sequence[str]) -> str | None:
    for packed in PACKED:
        name = name.removesuffix(packed)
    stem, kind = osp.splitext(name)
    return stem if kind in kinds and stem else None


def _parts(found: Mapping[str, str]) -> dict[str, int]:
    r"""Returns the files of training, validation (which may be missing) and
    test with their labels, or an empty dictionary unless there is exactly one
    set of such files.
    """
    sets: dict[str, dict[int, str]] = {}
    for entry, stem in found.items():
        match = PART.fullmatch(stem)
        if match:
            files = sets.setdefault(match['stem'] or '', {})
            if files.setdefault(PARTS[match['part']], entry) != entry:
                return {}
    if len(sets) != 1:
        return {}
    files = next(iter(sets.values()))
    return {files[label]: label for label in sorted(files)} if {0, 2} <= files.keys() else {}


def read_source(
    source: Source,
    split: str | None,
    given: Mapping[str, str | None],
    wanted: Sequence[str] = (),
) -> tuple[Columns, dict[str, str]]:
    r"""Reads the interactions.

    Args:
        source: The files.
        split: The split rule, which may need times or labels.
        given: Names of columns that the user specified, by role.
        wanted: Roles of further required columns: :obj:`'rating'`,
            :obj:`'event'`.

    Returns:
        The columns, and their names by role.

    Raises:
        ValueError: If a file is malformed, lacks a column, or has other
            columns than the first one, or if there is no interaction.
    """
    tables: list[Columns] = []
    names: dict[str, str] = {}
    for found in stream_source(source, split, given, wanted, _whole):
        table, names = found.table, found.names
        if len(table):
            tables.append(table)
    if not tables:
        raise ValueError(f"'{source.path}' holds no interactions; expected at least one")
    return tables[0] if len(tables) == 1 else stack(source.path, tables), names


class Block(NamedTuple):
    r"""Consecutive rows of the interactions of a data set."""

    file: int  # Position of their file.
    table: Columns
    names: dict[str, str]  # Names of the columns by role.


def stream_source(
    source: Source,
    split: str | None,
    given: Mapping[str, str | None],
    wanted: Sequence[str],
    read: Callable[..., Iterable[Columns]],
    announce: bool = True,
) -> Iterator[Block]:
    r"""Yields the interactions block by block.

    Args:
        source: The files.
        split: The split rule.
        given: Names of columns that the user specified, by role.
        wanted: Roles of further required columns.
        read: A function with the arguments of
            :func:`~motor_geo.data.datasets.reader.read_table` that yields
            the blocks of a file. Lists of items by user are one block.
        announce: Whether to warn about columns with other common names.

    Raises:
        ValueError: As :func:`read_source`.
    """
    first: dict[str, str] = {}
    tables: Iterable[Columns]
    for position, path in enumerate(source.files):
        if path.endswith('.json'):
            names = {role: STANDARD[role] for role in ('user', 'item')}
            tables = [read_lists(path)]
        else:
            names, columns = _find(path, source, split, given, wanted, announce and position == 0)
            if first and names != first:
                raise ValueError(
                    f"'{path}': expected the columns {listed(list(first.values()))} as in "
                    f"'{source.files[0]}', found {listed(list(names.values()))}"
                )
            first = names
            tables = read(path, **columns)
        labeled = source.labels is not None and split in (None, 'column')
        if labeled:
            names = {**names, 'label': STANDARD['label']}
        for table in tables:
            if labeled:
                assert source.labels is not None
                label = np.full(len(table), source.labels[position], np.int64)
                table.numbers[STANDARD['label']] = label
            yield Block(position, table, names)


def _whole(path: str, **columns: Any) -> list[Columns]:
    return [read_table(path, **columns)]


def _find(
    path: str,
    source: Source,
    split: str | None,
    given: Mapping[str, str | None],
    wanted: Sequence[str],
    announce: bool,
) -> tuple[dict[str, str], dict[str, list[str]]]:
    r"""Returns the names of the columns of a file by role, and the arguments of
    :func:`read_table` that read them.
    """
    header = read_header(path)
    needed, optional = ['user', 'item', *wanted], list[str]()
    if source.labels is None and split in (None, 'column'):
        (needed if split else optional).append('label')
    if split in TIMED:
        (needed if TIMED[split] == 'needed' else optional).append('time')
    names = find_columns(path, header, given, needed, optional, announce)
    columns = {role: [names[role]] if role in names else [] for role in STANDARD}
    if 'label' not in names and split is None and source.labels is None and announce:
        if time := find_columns(path, header, given, [], ['time'], False).get('time'):
            warnings.warn(
                f"'{path}' holds times ('{clipped(time)}'), but no split was chosen: it is random "
                f"within each user; split='temporal' (--data.split temporal) holds out each user's "
                f"latest interactions, and split='global_time' the latest interactions overall.",
                stacklevel=5,
            )
    return names, {
        'ids': columns['user'] + columns['item'] + columns['event'],
        'integers': columns['label'],
        'numbers': columns['rating'],
        'optional': [name for role in optional for name in columns[role]],
        'times': columns['time'],
    }


def read_lists(path: str) -> Columns:
    r"""Reads lists of items by user, :obj:`{"0": [3, 7], ...}`, as a table.

    Args:
        path: The JSON file.

    Raises:
        ValueError: If the file contains anything else.
    """
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if str(error).startswith(f"'{path}'"):
            raise
        raise ValueError(f"'{path}' cannot be read as JSON: {clipped(error, 200)}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f'\'{path}\': expected lists of items by user, {{"0": [3, 7]}}, got '
            f"'{clipped(content)}'"
        )
    users: list[str] = []
    items: list[str] = []
    for user, entries in content.items():
        if not isinstance(entries, list) or not all(type(item) in (int, str) for item in entries):
            raise ValueError(
                f"'{path}', user '{clipped(user)}': expected a list of item ids, got "
                f"'{clipped(entries)}'"
            )
        users += [user] * len(entries)
        items += map(str, entries)
    table = Columns(path, unit='pair')
    names = STANDARD['user'], STANDARD['item']
    for name, values in zip(names, (users, items)):
        empty = Ids(np.empty(0, np.int64), np.empty(0, np.int64))
        table.ids[name] = as_ids(table, name, Fields.from_list(values)) if values else empty
    return table


def raw_ids(folder: str, role: str, numbers: np.ndarray) -> np.ndarray:
    r"""Maps numbers to raw ids with :obj:`u_id_mapping.csv` and
    :obj:`i_id_mapping.csv` (MMRec). Each of these files has two columns, the id
    and the number.

    Args:
        folder: The folder of the files.
        role: :obj:`'user'` or :obj:`'item'`.
        numbers: The numbers, **[M]** or **[N]**.

    Returns:
        The raw ids, or the numbers themselves if there is no such file or (with
        a warning) if it lacks some of the numbers.

    Raises:
        ValueError: If the file has other columns, or repeats a number or an id.
    """
    path, column = osp.join(folder, MAPPINGS[role]), STANDARD[role]
    if numbers.dtype.kind != 'i' or not osp.lexists(path):
        return numbers
    header = read_header(path)
    if len(header) != 2 or column not in header or len(set(header)) < 2:
        raise ValueError(
            f"'{path}': expected two columns, one of them '{column}', found {listed(header)}"
        )
    other = header[1 - header.index(column)]
    table = read_table(path, [column, other])
    for name in (column, other):
        values, codes = table.ids[name]
        if len(values) < len(codes):
            row = _repeated(codes)
            raise ValueError(
                f"{table.locate(row)}: expected each '{name}' once, got "
                f"'{clipped(values[codes[row]])}' again"
            )
    known, raw = (values[codes] for values, codes in (table.ids[name] for name in (column, other)))
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known[order], numbers), len(known) - 1)
    missing = known[order][place] != numbers
    if missing.any():
        warnings.warn(
            f"'{path}' lacks {missing.sum()} of the {len(numbers)} numbers '{column}', such as "
            f'{numbers[missing.argmax()]}; showing numbers instead of ids.',
            stacklevel=4,
        )
        return numbers
    return raw[order][place]


def _repeated(codes: np.ndarray) -> int:
    r"""Returns the first row whose code occurred before."""
    first = np.unique(codes, return_index=True)[1]
    return int(np.setdiff1d(np.arange(len(codes)), first, assume_unique=True)[0])
