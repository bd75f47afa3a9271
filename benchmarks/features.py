r"""Measures the cost and the benefit of the iterations of OPQ, its
initialization, and the reduction to principal axes:

    python -m benchmarks.features --data FOLDER

:obj:`FOLDER` holds one folder per data set in the common layout. Seconds are
CPU time of one thread. The error is the squared error of the decoded tokens
relative to the variance of the features, including the variance that a
reduction drops.
"""

from __future__ import annotations

import argparse
import os.path as osp
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from motor_geo.data.transforms.fit_quantizer import _eigh, _leading_axes, fit_quantizer
from motor_geo.data.transforms.token_report import token_report

#: Data sets and modalities.
FEATURES = (('ml1m', 'image'), ('sports', 'text'))
ITERATIONS = (1, 2, 5, 10, 20, 50)
DIMENSIONS = (64, 128, 256, 512, None)
NUM_TOKENS, CODEBOOK_SIZE = 4, 256

Row = dict[str, Any]


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    r"""Returns the result of a function, and its seconds of CPU time."""
    start = time.process_time()
    return function(), time.process_time() - start


def load(folder: str) -> dict[str, np.ndarray]:
    r"""Loads those of :obj:`FEATURES` that the folder holds."""
    paths = {f'{data} {m}': osp.join(folder, data, f'{m}_feat.npy') for data, m in FEATURES}
    return {what: np.load(path) for what, path in paths.items() if osp.exists(path)}


def fit_row(what: str, x: np.ndarray, **setting: Any) -> Row:
    r"""Measures tokens with a single setting."""
    quantizer, seconds = timed(lambda: fit_quantizer(x, NUM_TOKENS, CODEBOOK_SIZE, **setting))
    report = token_report({what: quantizer}, {what: x}, k=0)['modalities'][what]
    return {'what': what, 'setting': setting, 'seconds': seconds, 'error': report['error']}


def iteration_rows(
    features: dict[str, np.ndarray], iterations: Sequence[int] = ITERATIONS, max_dim: int = 512
) -> list[Row]:
    r"""Measures error and time by the number of iterations, for both
    initializations.
    """
    with one_thread():
        return [
            fit_row(what, x, num_iters=num_iters, init=init, max_dim=max_dim)
            for what, x in features.items()
            for init in ('pca', 'random')
            for num_iters in iterations
        ]


def dimension_rows(
    features: dict[str, np.ndarray],
    dimensions: Sequence[int | None] = DIMENSIONS,
    num_iters: int = 10,
) -> list[Row]:
    r"""Measures error and time by the number of principal axes. :obj:`None`
    keeps all axes. Numbers without any reduction are left out.
    """
    with one_thread():
        return [
            fit_row(what, x, num_iters=num_iters, init='pca', max_dim=max_dim)
            for what, x in features.items()
            for max_dim in dimensions
            if max_dim is None or max_dim < x.shape[1]
        ]


def axes_rows(width: int = 4096, num_rows: int = 8192, num_axes: int = 512) -> list[Row]:
    r"""Compares the computation of all eigenvectors of a covariance with the
    iteration for the leading ones, on generated features with a decaying
    spectrum. The error is the share of the variance outside the axes.
    """
    generator = torch.Generator().manual_seed(0)
    rank = width // 4
    scale = torch.arange(1, rank + 1) ** -0.5
    basis = torch.randn(rank, width, generator=generator) * scale.view(-1, 1)
    x = torch.randn(num_rows, rank, generator=generator) @ basis
    x += 0.3 * torch.randn(num_rows, width, generator=generator)
    matrix = torch.cov(x.relu().t()).double()

    def row(method: str, function: Callable[[], torch.Tensor]) -> Row:
        axes, seconds = timed(function)
        outside = 1 - float(((axes @ matrix) * axes).sum() / matrix.trace())
        setting = {'method': method, 'width': width, 'num_axes': num_axes}
        return {'what': 'principal axes', 'setting': setting, 'seconds': seconds, 'error': outside}

    with one_thread():
        return [
            row('exact', lambda: _eigh(matrix)[1][:num_axes]),
            row('iteration', lambda: _leading_axes(matrix, num_axes)),
        ]


def rows(folder: str) -> list[Row]:
    r"""Runs all measurements of this module."""
    features = load(folder)
    return [*iteration_rows(features), *dimension_rows(features), *axes_rows()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.features')
    parser.add_argument('--data', required=True, help='folder of data set folders')
    for row in rows(parser.parse_args(arguments).data):
        setting = ', '.join(f'{key}={value}' for key, value in row['setting'].items())
        print(f'{row["what"]:<16}{setting:<46}{row["seconds"]:>8.2f} s{row["error"]:>9.4f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
