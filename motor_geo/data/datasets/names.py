r"""Which column of a table holds users, items, times, labels, ratings and events."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

from motor_geo.data.datasets.messages import clipped, listed

#: What a column is called, by what it holds.
STANDARD = {
    'user': 'userID',
    'item': 'itemID',
    'label': 'x_label',
    'time': 'timestamp',
    'rating': 'rating',
    'event': 'event',
}
#: Other names, without case, blanks, dashes and underscores.
ALIASES = {
    'user': 'user uid userid reviewerid customer customerid visitorid memberid buyerid',
    'item': 'item iid itemid asin parentasin movieid product productid videoid trackid songid '
    'bookid articleid newsid businessid gameid artistid recipeid sku isbn',
    'label': 'xlabel',
    'time': 'timestamp time ts datetime date unixreviewtime unixtime reviewtime ratedat createdat',
    'rating': 'rating overall stars score',
    'event': 'event eventtype behavior behaviortype action actiontype type',
}
TYPE = re.compile(r':(token|token_seq|float|float_seq)$')  # RecBole's.


def untyped(name: str) -> str:
    r"""A name without RecBole's type."""
    return TYPE.sub('', name)


def find_columns(
    path: str,
    header: Sequence[str],
    given: Mapping[str, str | None],
    needed: Sequence[str],
    optional: Sequence[str] = (),
    announce: bool = True,
) -> dict[str, str]:
    r"""Names of the columns as they are in the header.

    A column that was not named is the one of the standard name, or else the
    only one of another usual name, which is announced by a warning.

    Args:
        path: The file, for messages.
        header: Names of all columns; none if they are unknown.
        given: Names that were chosen, by what the column holds.
        needed: What has to be there.
        optional: What may be there.
        announce: Whether to warn of columns of other names.

    Raises:
        ValueError: If a column is missing, or several could be meant.
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
            hint = '' if name is not None else f'; {role}=NAME (--data.{role}) takes another'
            raise ValueError(
                f"'{path}': expected a column '{clipped(name or STANDARD[role])}', found the "
                f'columns {listed(header)}{hint}'
            )
    for role, column in found.items():
        other = next(r for r, c in found.items() if c == column)
        if other != role:
            raise ValueError(
                f"'{path}': the column '{clipped(column)}' cannot be '{other}' and '{role}' at "
                f'once; expected two columns'
            )
    if guessed and announce:
        words = ' and '.join(f"'{clipped(name)}' as '{role}'" for role, name in guessed.items())
        warnings.warn(
            f"'{path}': took the column{'s' if len(guessed) > 1 else ''} {words} "
            f'({", ".join(f"--data.{role}" for role in guessed)} names another).',
            stacklevel=4,
        )
    return found


def _exactly(header: Sequence[str], name: str) -> str | None:
    r"""The column of a name, perhaps with a type behind it."""
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
            f'(--data.{role}) says which'
        )
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r'[\s_-]', '', untyped(name)).lower()
