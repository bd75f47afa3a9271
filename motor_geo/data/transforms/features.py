r"""Feature matrices of any kind (tensor, array, memory-mapped file) as checked
arrays that are read block by block.
"""

from __future__ import annotations

import hashlib
import inspect
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.typing import ITEM, feature_key, feature_modalities, node_store
from motor_geo.utils.arrays import check_finite

#: Feature matrices, one row per item.
Matrix = Tensor | np.ndarray | Sequence[Sequence[float]]


def edge_type_of(edge_type: Sequence[str]) -> EdgeType:
    r"""A checked triple of names."""
    if isinstance(edge_type, str) or len(edge_type) != 3:
        raise ValueError(
            f"edge_type must be a triple such as ('user', 'rates', 'item'), got {edge_type!r}."
        )
    source, relation, target = (str(name) for name in edge_type)
    return source, relation, target


def needed_modalities(
    data: HeteroData, modalities: Sequence[str] | None, node_type: str = ITEM
) -> list[str]:
    r"""The given modalities, or all of the graph.

    Raises:
        ValueError: If there are none.
    """
    found = feature_modalities(data, node_type) if modalities is None else list(modalities)
    if not found:
        raise ValueError(
            f"The graph has no item features: expected data['{node_type}'].x_<modality> or .x."
        )
    return found


def modality_names(modalities: str | Sequence[str] | None) -> list[str] | None:
    r"""Distinct names in sorted order; a single one may come as a string."""
    if isinstance(modalities, str):
        modalities = [modalities]
    return None if modalities is None else sorted(set(modalities))


def item_mask(data: HeteroData, modality: str, node_type: str = ITEM) -> np.ndarray | None:
    r"""Which items have a modality, **[N]**; :obj:`None` if all have it."""
    mask = node_store(data, node_type).get(f'mask_{modality}')
    return None if mask is None else as_array(mask).astype(bool)


def item_features(
    data: HeteroData, modality: str, node_type: str = ITEM, fill: Tensor | None = None
) -> np.ndarray:
    r"""The features of a modality.

    Args:
        data: The graph.
        modality: Name of the modality.
        node_type: Node type of items.
        fill: What replaces rows with NaN or infinite values of items that
            lack the modality. (default: zeros)

    Raises:
        ValueError: If they are missing, no matrix, or not finite.
    """
    store = node_store(data, node_type)
    key = feature_key(store, modality)
    name = f"data['{node_type}'].{key}"
    if key not in store:
        raise ValueError(
            f"{name} is missing: expected features of the modality '{modality}', found those of "
            f'{feature_modalities(data, node_type)}.'
        )
    mask = item_mask(data, modality, node_type)
    try:
        return check_matrix(store[key], name, mask, fill)
    except ValueError as error:
        if mask is not None or 'NaN' not in str(error):
            raise
        hint = f"data['{node_type}'].mask_{modality}, False where an item lacks them"
        raise ValueError(f'{error} (or {hint})') from None


def check_matrix(
    x: Matrix, name: str, mask: np.ndarray | None = None, fill: Tensor | None = None
) -> np.ndarray:
    r"""The matrix as array, after a check of shape and values. Rows that
    :obj:`mask` leaves out may hold anything: those with NaN or infinite
    values are replaced by :obj:`fill` or zeros.
    """
    try:
        array = as_array(x)
    except ValueError:
        raise ValueError(f'{name} must be a matrix [items, width], got a ragged list.') from None
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f'{name} must be a matrix [items, width], got {list(array.shape)}.')
    if array.dtype.kind not in 'biuf':
        raise ValueError(f'{name} must hold numbers, got {array.dtype}.')
    if mask is not None and mask.shape != array.shape[:1]:
        raise ValueError(f'{name} has {array.shape[0]} rows, but its mask {list(mask.shape)}.')
    if mask is not None and not mask.all():
        rows = np.flatnonzero(~mask)
        rows = rows[~np.isfinite(array[rows]).all(axis=1)]
        if rows.size > 0:
            array = np.array(array)
            array[rows] = 0 if fill is None else fill.numpy()
    check_finite(array, name)
    return array


def as_array(x: Matrix) -> np.ndarray:
    r"""The matrix as :obj:`numpy.ndarray`, without a copy where possible (a
    memory-mapped file stays one).
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return x if isinstance(x, np.ndarray) else np.asarray(x)


def device_of(x: Matrix) -> torch.device:
    r"""Where what is made from the matrix should go."""
    return x.device if isinstance(x, Tensor) else torch.device('cpu')


def as_int(name: str, value: Any) -> int:
    r"""A whole number of any integer type."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f'{name} must be an integer, got {value!r}.') from None


def arguments(transform: object, always: Sequence[str] = ()) -> str:
    r"""Arguments of a transform in words: some, and those that differ from
    their default. How it works (caches, blocks, bars) is left out.
    """
    words = []
    for name, parameter in inspect.signature(type(transform)).parameters.items():
        value = getattr(transform, name)
        changed = value != parameter.default and name not in ('cache', 'verbose', 'block_size')
        if name in always or changed:
            words.append(f'{name}={value!r}')
    return ', '.join(words)


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
