from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


class Bars:
    r"""Progress bars in a terminal."""

    def __init__(self, progress: bool):
        self.disable = not progress or not sys.stderr.isatty()

    def __call__(self, name: str, total: int | None, unit: str) -> Any:
        from tqdm import tqdm

        return tqdm(total=total, desc=name, unit=unit, unit_scale=True, disable=self.disable)

    def over(self, name: str, count: int) -> Iterator[int]:
        r"""Yields the numbers of all shards."""
        with self(name, count, 'shard') as bar:
            for number in range(count):
                yield number
                bar.update()
