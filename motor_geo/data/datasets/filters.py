r"""Filters interactions by rating or event, and users and items by their number
of interactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from motor_geo.data.datasets.base import unique_pairs
from motor_geo.data.datasets.columns import Columns
from motor_geo.data.datasets.messages import listed
from motor_geo.data.datasets.split import SPLITS
from motor_geo.data.datasets.subsample import core_mask, thin_users


class Options(NamedTuple):
    r"""The options that determine how interactions become a data set. They are
    documented in :class:`~motor_geo.data.TableDataset`.
    """

    split: str | None = None
    seed: int = 0
    train_share: float = 1.0
    missing_share: float = 0.0
    min_rating: float | None = None
    event: list[str] | None = None
    core: int | None = None
    cold_share: float = 0.0
    per_user: float | None = None

    def check(self) -> None:
        r"""Raises a :class:`ValueError` if an option is out of range."""
        if not 0 < self.train_share <= 1:
            raise ValueError(
                f"'train_share' must be above 0 and at most 1, got {self.train_share}."
            )
        if not 0 <= self.missing_share <= 1:
            raise ValueError(f"'missing_share' must be from 0 to 1, got {self.missing_share}.")
        if not 0 <= self.cold_share < 1:
            raise ValueError(f"'cold_share' must be at least 0 and below 1, got {self.cold_share}.")
        if self.per_user is not None and self.per_user < 1:
            raise ValueError(f"'per_user' must be at least 1, got {self.per_user}.")
        if self.cold_share > 0 and self.split == 'cold_item':
            raise ValueError(
                "The split 'cold_item' already holds out items; leave out 'cold_share'."
            )
        if self.split not in (None, 'column', *SPLITS):
            raise ValueError(
                f"Unknown split '{self.split}'; expected 'column' or {sorted(SPLITS)}."
            )
        if self.seed < 0:
            raise ValueError(f"'seed' must be at least 0, got {self.seed}.")
        if self.core is not None and self.core < 1:
            raise ValueError(f"'core' must be at least 1, got {self.core}.")

    @property
    def filters(self) -> bool:
        r"""Whether :func:`leave_out` has something to do."""
        return bool(self.columns) or self.core is not None or self.per_user is not None

    @property
    def columns(self) -> list[str]:
        r"""The columns that the options require besides users and items."""
        rating = [] if self.min_rating is None else ['rating']
        return rating + ([] if self.event is None else ['event'])


class Interactions(NamedTuple):
    r"""Interactions, items and features before any filter."""

    table: Columns
    names: Mapping[str, str]  # Names of the columns.
    user: np.ndarray
    item: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    features: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    listed: bool  # Whether there is a separate list of items.


def kept_rows(table: Columns, names: Mapping[str, str], options: Options) -> np.ndarray:
    r"""Marks the rows of a table that filters by rating and event keep, **[E]**."""
    keep = np.ones(len(table), bool)
    if options.min_rating is not None:
        keep &= table.numbers[names['rating']] >= options.min_rating
    if options.event is not None:
        values, codes = table.ids[names['event']]
        keep &= np.isin(values.astype(str), [str(event) for event in options.event])[codes]
    return keep


def check_events(table: Columns, column: str, events: Sequence[str]) -> None:
    r"""Raises a :class:`ValueError` if a column lacks one of the events."""
    values = table.ids[column].values.astype(str).tolist()
    unknown = sorted({str(event) for event in events} - set(values))
    if unknown:
        raise ValueError(
            f"'{table.path}': the column '{column}' holds no {listed(unknown)}; found the events "
            f'{listed(values)}'
        )


def check_labels(table: Columns, names: Mapping[str, str]) -> None:
    r"""Raises a :class:`ValueError` if a label stands for no split."""
    label = table.numbers.get(names.get('label', ''))
    if label is not None and ((label < 0) | (label > 2)).any():
        row = int(((label < 0) | (label > 2)).argmax())
        raise ValueError(
            f'{table.locate(row)}: expected 0 (train), 1 (val) or 2 (test) in column '
            f"'{names['label']}', got {label[row]}."
        )


def check_left(name: str, rows: int, options: Options) -> None:
    r"""Raises a :class:`ValueError` if no interaction is left."""
    if rows == 0:
        raise ValueError(
            f"'{name}': no interaction is left with min_rating={options.min_rating}, "
            f'event={options.event} and core={options.core}; expected at least one.'
        )


def leave_out(name: str, data: Interactions, options: Options) -> tuple[Interactions, np.ndarray]:
    r"""Removes interactions with low ratings, with other events or outside of
    the core. Users without interactions are always removed. Items without
    interactions are removed if :obj:`core` is given, or if there are neither
    features nor a list of items.

    Args:
        name: Name of the data set, for messages.
        data: The data.
        options: The options.

    Returns:
        The filtered data, and the rows that remain.

    Raises:
        ValueError: If no interaction remains, or the column of events has none
            of a given name.
    """
    table, names = data.table, data.names
    if options.event is not None:
        check_events(table, names['event'], options.event)
    keep = kept_rows(table, names, options)
    rows = np.flatnonzero(keep)
    if options.per_user is not None and len(rows):
        rows = rows[np.sort(unique_pairs(data.user[rows], data.item[rows]))]
        rows = rows[thin_users(data.user[rows], data.item[rows], options.per_user, options.seed)]
    if options.core is not None and len(rows):
        pairs = rows[unique_pairs(data.user[rows], data.item[rows])]
        pairs = pairs[core_mask(data.user[pairs], data.item[pairs], options.core)]
        kept = np.zeros(len(data.user_ids), bool), np.zeros(len(data.item_ids), bool)
        kept[0][data.user[pairs]], kept[1][data.item[pairs]] = True, True
        rows = rows[kept[0][data.user[rows]] & kept[1][data.item[rows]]]
    check_left(name, len(rows), options)
    users, user = np.unique(data.user[rows], return_inverse=True)
    data = data._replace(user=user, item=data.item[rows], user_ids=data.user_ids[users])
    if options.core is not None or not (data.features or data.listed):
        items, item = np.unique(data.item, return_inverse=True)
        data = data._replace(
            item=item,
            item_ids=data.item_ids[items],
            features={m: x[items] for m, x in data.features.items()},
            masks={m: mask[items] for m, mask in data.masks.items()},
        )
    return data, rows
