r"""Formats rows of measurements as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]


def group(rows: Sequence[Row], by: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    r"""Groups rows by a key, in the order of first occurrences."""
    out: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        out[by(row)].append(row)
    return out


def spread(values: Sequence[float]) -> str:
    r"""Formats the mean and the sample standard deviation, with four decimals below
    one and one decimal otherwise.
    """
    mean = np.mean(values)
    digits = 4 if mean <= 1 else 1
    text = f'{mean:.{digits}f}'
    return text if len(values) < 2 else f'{text} ± {np.std(values, ddof=1):.{digits}f}'


def markdown(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    r"""Formats a table."""
    out = ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header)]
    out += ['| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines]
    return '\n'.join(out) + '\n'
