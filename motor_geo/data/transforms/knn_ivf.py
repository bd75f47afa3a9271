r"""Finds near rows of a large feature matrix approximately, with an inverted file of
:obj:`faiss`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motor_geo.data.transforms.features import check_matrix
from motor_geo.data.transforms.fit_quantizer import import_faiss, one_thread_faiss, short_seed
from motor_geo.data.transforms.knn import is_zero, nearest, product, top, unit_rows

#: Rows to learn a cell from, and rows whose neighbors measure the recall.
ROWS_PER_CELL, SAMPLE = 64, 1000


def knn_graph_ivf(
    x: Tensor | np.ndarray, k: int, num_probes: int = 16, seed: int = 0, block_size: int = 1024
) -> tuple[Tensor, Tensor, float]:
    r"""Finds, for each row, the row itself and :math:`k - 1` other rows with a
    large cosine similarity, among the rows of nearby cells.

    The rows are divided into about :math:`2 \sqrt{N}` cells by :math:`k`-means,
    and a row is compared with those of its nearest cells only, in
    :math:`\mathcal{O}(N^{1.5} d)` time and :math:`\mathcal{O}(N d)` memory in
    single precision. The result is the same for any number of threads.

    Args:
        x: Feature matrix, **[N, d]**.
        k: Length of the lists, including the row itself.
        num_probes: Number of cells whose rows are compared. (default: :obj:`16`)
        seed: Seed of the cells. (default: :obj:`0`)
        block_size: Number of rows to compare at once. (default: :obj:`1024`)

    Returns:
        Indices and similarities in descending order, **[N, k]** each, and the
        recall: the share of the exact neighbors that the lists of 1,000 random rows
        contain. A list with fewer than :math:`k` rows repeats its row with
        similarity zero.

    Raises:
        ValueError: If :obj:`k` exceeds the number of rows, or a row contains
            NaN or infinite values.
        ImportError: If :obj:`faiss` is not installed.
    """
    array = check_matrix(x, 'The feature matrix')
    num_rows = array.shape[0]
    if not 1 <= k <= num_rows:
        raise ValueError(f'k must be between 1 and the number of rows ({num_rows}), got {k}.')
    zero = is_zero(array)
    index, similarity = _search(
        array, (~zero).numpy().nonzero()[0], k, num_probes, seed, block_size
    )
    return index, similarity, _recall(array, index, k, seed, block_size)


def _search(
    x: np.ndarray, rows: np.ndarray, k: int, num_probes: int, seed: int, block_size: int
) -> tuple[Tensor, Tensor]:
    r"""Rows and similarities of the nonzero :obj:`rows`, in the order of the matrix."""
    index = torch.arange(len(x)).view(-1, 1).repeat(1, k)
    similarity = torch.zeros(len(x), k)
    similarity[:, 0] = 1.0
    if rows.size == 0:
        return index, similarity
    cells = max(1, min(int(2 * math.sqrt(rows.size)), rows.size // 39))
    num_probes = min(num_probes, cells)
    with one_thread_faiss() as faiss:  # Several threads would sum in another order.
        inverted, centroid = _cells(faiss, x, rows, cells, seed)
    for start in range(0, rows.size, block_size):
        block = unit_rows(x, rows[start : start + block_size], torch.float)
        _, cell = top(product(block, centroid), 1)
        inverted.add_core(len(block), *_pointers(block.numpy(), None, cell.view(-1).numpy()))
    inverted.nprobe = num_probes
    for start in range(0, rows.size, block_size):
        own = rows[start : start + block_size]
        block = unit_rows(x, own, torch.float)
        near, cell = top(product(block, centroid), num_probes)
        value, found = inverted.search_preassigned(block.numpy(), k, cell.numpy(), near.numpy())
        missing = found < 0
        found = np.where(missing, own[:, None], rows[found])
        itself = (found == own[:, None]) & ~missing
        itself[:, -1] |= ~itself.any(axis=1)  # Copies of a row may push it out of its list.
        value = np.where(itself, 2.0, np.where(missing, -2.0, value))
        found[itself] = own
        order = np.argsort(-value, axis=1, kind='stable')
        value = np.take_along_axis(value, order, 1)
        value = np.where(value == 2, 1.0, np.where(value == -2, 0.0, value))
        index[own] = torch.from_numpy(np.take_along_axis(found, order, 1))
        similarity[own] = torch.from_numpy(value).float()
    return index, similarity


def _cells(
    faiss: Any, x: np.ndarray, rows: np.ndarray, cells: int, seed: int
) -> tuple[Any, Tensor]:
    r"""An empty inverted file and the centroids of its cells."""
    generator = np.random.default_rng(seed)
    sample = np.sort(generator.permutation(rows)[: ROWS_PER_CELL * cells])
    unit = unit_rows(x, sample, torch.float).numpy()
    means = faiss.Kmeans(unit.shape[1], cells, niter=10, seed=short_seed(seed), spherical=True)
    means.cp.min_points_per_centroid = 1
    means.train(unit)
    flat = faiss.IndexFlatIP(unit.shape[1])
    flat.add(means.centroids)
    inverted = faiss.IndexIVFFlat(flat, unit.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    inverted.is_trained = True
    return inverted, torch.from_numpy(means.centroids.copy())


def _pointers(*arrays: np.ndarray | None) -> list[Any]:
    swig_ptr = import_faiss().swig_ptr
    return [None if array is None else swig_ptr(np.ascontiguousarray(array)) for array in arrays]


def _recall(x: np.ndarray, index: Tensor, k: int, seed: int, block_size: int) -> float:
    r"""The share of exact neighbors, other than the row itself, in the lists of a sample."""
    if k == 1:
        return 1.0
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:SAMPLE])
    exact, _ = nearest(x, rows, x, np.arange(len(x)), k, block_size)
    own = torch.from_numpy(rows).view(-1, 1)
    wanted = exact != own
    wanted[:, -1] &= wanted.sum(dim=1) < k  # If the row is not in its own exact list.
    found = (exact.unsqueeze(2) == index[rows].unsqueeze(1)).any(dim=2)
    return float((found & wanted).sum() / wanted.sum().clamp(min=1))
