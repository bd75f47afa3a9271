r"""Formats values for messages of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTH = 60  # Maximum length of a value.
LISTED = 200  # Approximate maximum length of a list.


def clipped(value: Any, width: int = WIDTH) -> str:
    r"""Converts a value to text and cuts it to :obj:`width` characters."""
    text = str(value)
    return text if len(text) <= width else f'{text[: width - 3]}...'


def listed(values: Sequence[Any]) -> str:
    r"""Formats a list as Python does. A long list ends with the number of
    omitted entries.
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
