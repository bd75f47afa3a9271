r"""Measures everything before the first training step, and compares it with
straightforward code:

    python -m benchmarks.loading

Interactions are generated. Seconds are medians of CPU time of one thread. Both
forms run in turns.
"""

from __future__ import annotations

import argparse
import csv
import os.path as osp
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from motor_geo.data import BPRSampler, TableDataset
from motor_geo.data.datasets.reader import read_table
from motor_geo.nn.models import LightGCN
from motor_geo.typing import RATES

#: The size of Electronics: number of users, items and interactions.
SIZES = 192_403, 63_001, 1_700_000
MODULES = ('motor_geo', 'motor_geo.nn.models', 'motor_geo.data', 'motor_geo.run')
COLUMNS = ['userID', 'itemID']

Row = dict[str, Any]


@contextmanager
def generated(sizes: Sequence[int] = SIZES) -> Iterator[str]:
    r"""Creates a temporary folder with generated interactions and an empty
    cache.
    """
    num_users, num_items, num_rows = sizes
    generator = np.random.default_rng(0)
    user = np.concatenate([np.arange(num_users), generator.integers(0, num_users, num_rows)])
    item = np.arange(len(user)) % num_items
    pair = np.unique(user * num_items + item)
    pair = np.sort(generator.permutation(pair)[:num_rows])
    user, item = np.unique(pair // num_items, return_inverse=True)[1], pair % num_items
    label = generator.choice(3, len(user), p=[0.8, 0.1, 0.1])
    label[np.unique(user, return_index=True)[1]] = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        with open(osp.join(folder, 'shop.inter'), 'w') as file:
            file.write('userID\titemID\tx_label\n')
            columns = (user.tolist(), item.tolist(), label.tolist())
            file.writelines(f'{u}\t{i}\t{x}\n' for u, i, x in zip(*columns))
        try:
            with mock.patch('torch_geometric.get_home_dir', lambda: osp.join(folder, 'home')):
                yield folder
        finally:
            torch.set_num_threads(threads)


def compare(what: str, ours: Callable[[], Any], plain: Callable[[], Any], repeats: int = 5) -> Row:
    r"""Runs two functions in turns, and returns their median CPU time."""
    seconds: dict[str, list[float]] = {'ours': [], 'plain': []}
    for _ in range(repeats):
        for key, function in (('ours', ours), ('plain', plain)):
            start = time.process_time()
            function()
            seconds[key].append(time.process_time() - start)
    return {
        'what': what,
        **{key: statistics.median(values) for key, values in seconds.items()},
        'unit': 's',
    }


def parse_plainly(path: str) -> list[np.ndarray]:
    r"""Parses a file with a straightforward loop."""
    columns: dict[str, list[int]] = {'userID': [], 'itemID': [], 'x_label': []}
    with open(path, newline='') as file:
        for row in csv.DictReader(file, delimiter='\t'):
            for name, values in columns.items():
                values.append(int(row[name]))
    return [np.array(values) for values in columns.values()]


def start(folder: str) -> None:
    r"""Runs everything up to the first batch."""
    dataset = TableDataset(folder)
    LightGCN(dataset.data).graph(dataset.data)
    edge_index = dataset.data[RATES].edge_index
    next(iter(BPRSampler(edge_index, dataset.num_users, dataset.num_items).epoch(0)))


def parsing_row(folder: str, repeats: int = 5) -> Row:
    r"""Compares the first read of a file, with all its checks, with a loop over
    :class:`csv.DictReader`.
    """
    path = osp.join(folder, 'shop.inter')

    def parse() -> None:
        with mock.patch('motor_geo.data.datasets.reader.CACHED_SIZE', sys.maxsize):
            read_table(path, COLUMNS, ['x_label'])

    return compare('parsing', parse, lambda: parse_plainly(path), repeats)


def start_row(folder: str, repeats: int = 5) -> Row:
    r"""Measures the time from files to the first batch of LightGCN. This compares
    a later start, which uses the cache, with one that reads the file again.
    """
    start(folder)

    def anew() -> None:
        with mock.patch('motor_geo.data.datasets.reader.CACHED_SIZE', sys.maxsize):
            start(folder)

    return compare('second start', lambda: start(folder), anew, repeats)


def import_rows(modules: Sequence[str] = MODULES, repeats: int = 5) -> list[Row]:
    r"""Compares imports, each in its own process, with those of PyTorch and PyG
    alone.
    """
    plain = 'torch, torch_geometric'
    seconds: dict[str, list[float]] = {name: [] for name in (plain, *modules)}
    for _ in range(repeats):
        for name, values in seconds.items():
            code = f'import time; s = time.process_time(); import {name}; '
            code += 'print(time.process_time() - s)'
            output = subprocess.run([sys.executable, '-c', code], capture_output=True, check=True)
            values.append(float(output.stdout))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        {'what': f'import {name}', 'ours': median[name], 'plain': median[plain], 'unit': 's'}
        for name in modules
    ]


def rows(repeats: int = 5) -> list[Row]:
    r"""Runs all measurements of this module."""
    with generated() as folder:
        out = [parsing_row(folder, repeats), start_row(folder, repeats)]
    return out + import_rows(repeats=repeats)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.loading')
    parser.add_argument('--repeats', type=int, default=5)
    repeats = parser.parse_args(arguments).repeats
    for row in rows(repeats):
        print(f'{row["what"]:<32}{row["ours"]:>8.3f} {row["unit"]}, plain {row["plain"]:>8.3f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
