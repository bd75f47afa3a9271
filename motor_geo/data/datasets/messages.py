r"""Messages of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTH = 60  # Of a value.
LISTED = 200  # Of a list of names.


def clipped(value: Any, width: int = WIDTH) -> str:
    r"""A value as text, cut to :obj:`width` characters."""
    text = str(value)
    return text if len(text) <= width else f'{text[: width - 3]}...'


def listed(values: Sequence[Any]) -> str:
    r"""A list as Python writes it; a long one says how many entries are left
    out.
    """
    text = repr(list(values))
    if len(text) <= LISTED:
        return text
    shown: list[str] = []
    for value in values:
        shown.append(repr(clipped(value)))
        if sum(map(len, shown)) > LISTED - WIDTH:
            break
    rest = len(values) - len(shown)
    return f'[{", ".join(shown)}{f", and {rest:,} more" if rest else ""}]'
