r"""Checks numbers among arguments."""

from __future__ import annotations

import math
from typing import TypeVar

N = TypeVar('N', bound=float)


def positive(name: str, value: N) -> N:
    r"""Returns a number after checking it.

    Args:
        name: Name of the argument, for the message.
        value: The number.

    Raises:
        ValueError: If the number is not positive, NaN or infinite.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"'{name}' must be positive and finite (got {value})")
    return value


def not_negative(name: str, value: N) -> N:
    r"""Returns a number after checking it.

    Args:
        name: Name of the argument, for the message.
        value: The number.

    Raises:
        ValueError: If the number is negative, NaN or infinite.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"'{name}' must be at least 0 and finite (got {value})")
    return value
