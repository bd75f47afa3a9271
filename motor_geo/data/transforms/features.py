r"""Feature matrices of any kind (tensor, array, memory-mapped file) as checked
arrays that are read block by block.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.typing import ITEM
from motor_geo.utils.files import check_finite


def feature_modalities(data: HeteroData) -> list[str]:
    r"""Names :obj:`m` of the item features :obj:`x_m`, sorted."""
    return sorted(key[2:] for key in data[ITEM].keys() if key.startswith('x_'))


def item_features(data: HeteroData, modality: str) -> np.ndarray:
    r"""The features of a modality.

    Raises:
        ValueError: If they are missing, no matrix, or not finite.
    """
    name = f"data['item'].x_{modality}"
    if f'x_{modality}' not in data[ITEM]:
        raise ValueError(
            f"{name} is missing: expected features of the modality '{modality}', found those of "
            f'{feature_modalities(data)}.'
        )
    return check_matrix(data[ITEM][f'x_{modality}'], name)


def check_matrix(x: Tensor | np.ndarray, name: str) -> np.ndarray:
    r"""The matrix as array, after a check of shape and values."""
    array = as_array(x)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f'{name} must be a matrix [items, width], got {list(array.shape)}.')
    check_finite(array, name)
    return array


def as_array(x: Tensor | np.ndarray) -> np.ndarray:
    r"""The matrix as :obj:`numpy.ndarray`, without a copy where possible (a
    memory-mapped file stays one).
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return x


def as_block(x: np.ndarray, start: int, end: int, dtype: torch.dtype) -> Tensor:
    r"""A copy of the rows :obj:`start` to :obj:`end`."""
    return torch.tensor(x[start:end], dtype=dtype)


def unique_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Distinct rows in order of their first appearance: the row at which
    each appears first, **[U]**, and the distinct row of every row, **[N]**.
    """
    seen: dict[bytes, int] = {}
    first: list[int] = []
    inverse = np.empty(x.shape[0], dtype=np.int64)
    for i in range(x.shape[0]):
        key = hashlib.blake2b(x[i].tobytes(), digest_size=16).digest()
        inverse[i] = number = seen.setdefault(key, len(seen))
        if number == len(first):
            first.append(i)
    return np.asarray(first, dtype=np.int64), inverse
