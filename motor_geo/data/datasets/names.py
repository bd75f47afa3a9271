r"""Finds the columns of users, items, times, labels, ratings and events in a
table.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

from motor_geo.data.datasets.messages import clipped, listed

#: Standard names of columns by role.
STANDARD = {
    'user': 'userID',
    'item': 'itemID',
    'label': 'x_label',
    'time': 'timestamp',
    'rating': 'rating',
    'event': 'event',
}
#: Roles in the order of the arguments that name columns.
ROLES = ('user', 'item', 'time', 'label', 'rating', 'event')
#: Other common names, in lower case and without blanks, dashes and underscores.
ALIASES = {
    'user': 'user uid userid reviewerid customer customerid visitorid memberid buyerid',
    'item': 'item iid itemid asin parentasin movieid product productid videoid trackid songid '
    'bookid articleid newsid businessid gameid artistid recipeid sku isbn',
    'label': 'xlabel',
    'time': 'timestamp time ts datetime date unixreviewtime unixtime reviewtime ratedat createdat',
    'rating': 'rating overall stars score',
    'event': 'event eventtype behavior behaviortype action actiontype type',
}
TYPE = re.compile(r':(token|token_seq|float|float_seq)$')  # Types in RecBole's headers.


def untyped(name: str) -> str:
    r"""Removes RecBole's type from a column name."""
    return TYPE.sub('', name)


def find_columns(
    path: str,
    header: Sequence[str],
    given: Mapping[str, str | None],
    needed: Sequence[str],
    optional: Sequence[str] = (),
    announce: bool = True,
) -> dict[str, str]:
    r"""Finds the name of each column in the header.

    If the user did not specify a column, it is the one with the standard name,
    or else the only one with another common name. A warning reports the latter.

    Args:
        path: The file, for messages.
        header: Names of all columns; empty if they are unknown.
        given: Names that the user specified, by role.
        needed: Roles of the required columns.
        optional: Roles of the optional columns.
        announce: Whether to warn about columns with other common names.

    Returns:
        Names of the columns as in the header, by role.

    Raises:
        ValueError: If a column is missing, the choice is ambiguous, or a
            column would have two roles.
    """
    if not header:
        return {role: given.get(role) or STANDARD[role] for role in needed}
    found: dict[str, str] = {}
    guessed: dict[str, str] = {}
    for role in (*needed, *optional):
        name = given.get(role)
        if name is not None:
            column = _exactly(header, name)
        else:
            column = _exactly(header, STANDARD[role])
            if column is None:
                column = _usual(path, header, role, optional)
                if column is not None:
                    guessed[role] = column
        if column is not None:
            found[role] = column
        elif name is not None or role in needed:
            hint = '' if name is not None else f'; {role}=NAME (--data.{role}) selects another one'
            raise ValueError(
                f"'{path}': expected a column '{clipped(name or STANDARD[role])}', found the "
                f'columns {listed(header)}{hint}'
            )
    for role, column in found.items():
        other = next(r for r, c in found.items() if c == column)
        if other != role:
            raise ValueError(
                f"'{path}': the column '{clipped(column)}' cannot be both '{other}' and '{role}'; "
                f'expected two columns'
            )
    if guessed and announce:
        words = ' and '.join(f"'{clipped(name)}' as '{role}'" for role, name in guessed.items())
        warnings.warn(
            f"'{path}': using the column{'s' if len(guessed) > 1 else ''} {words} "
            f'({", ".join(f"--data.{role}" for role in guessed)} selects another one).',
            stacklevel=4,
        )
    return found


def _exactly(header: Sequence[str], name: str) -> str | None:
    r"""Returns the column with a given name, with or without a RecBole type."""
    if name in header:
        return name
    found = [column for column in header if untyped(column) == name]
    return found[0] if len(found) == 1 else None


def _usual(path: str, header: Sequence[str], role: str, optional: Sequence[str]) -> str | None:
    usual = ALIASES[role].split()
    found = [column for column in header if _plain(column) in usual]
    if len(found) > 1 and role not in optional:
        raise ValueError(
            f"'{path}': the columns {listed(found)} could each be '{role}'; {role}=NAME "
            f'(--data.{role}) selects one'
        )
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r'[\s_-]', '', untyped(name)).lower()
