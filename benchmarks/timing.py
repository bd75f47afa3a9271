r"""Rows of measurements: a name, our seconds (or MB), and those of the plain
form.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]


def row(what: str, ours: float, plain: float | None, unit: str = 's', **more: Any) -> Row:
    plain = None if plain is None else float(f'{plain:.4g}')
    return {'what': what, 'ours': float(f'{ours:.4g}'), 'plain': plain, 'unit': unit, **more}


def interleave(
    functions: Sequence[Callable[[], Any]], repeats: int, warmup: int = 1
) -> list[float]:
    r"""Runs functions in turns, and returns their median seconds."""
    seconds: list[list[float]] = [[] for _ in functions]
    for repeat in range(warmup + repeats):
        for function, values in zip(functions, seconds):
            start = time.perf_counter()
            function()
            if repeat >= warmup:
                values.append(time.perf_counter() - start)
    return [float(np.median(values)) for values in seconds]
