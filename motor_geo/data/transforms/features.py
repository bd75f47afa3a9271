r"""Converts feature matrices of any kind (tensor, array, memory-mapped file) to
checked arrays that can be read in blocks.
"""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.typing import ITEM, feature_key, feature_modalities, node_store
from motor_geo.utils.arrays import check_finite

#: A feature matrix with one row per item.
Matrix = Tensor | np.ndarray | Sequence[Sequence[float]]
#: Codebooks are fitted to a random sample of so many rows of larger catalogs.
MAX_ROWS = 2**18
#: Bytes of a matrix to process at a time, and an odd factor that mixes bits.
BLOCK_BYTES, FACTOR = 2**22, 0x9E3779B97F4A7C15


def edge_type_of(edge_type: Sequence[str]) -> EdgeType:
    r"""Returns an edge type after checking that it is a triple of names.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(edge_type, str) or len(edge_type) != 3:
        raise ValueError(
            f"edge_type must be a triple such as ('user', 'rates', 'item'), got {edge_type!r}."
        )
    source, relation, target = (str(name) for name in edge_type)
    return source, relation, target


def needed_modalities(
    data: HeteroData, modalities: Sequence[str] | None, node_type: str = ITEM
) -> list[str]:
    r"""Returns the given modalities, or all modalities of the graph.

    Args:
        data: The graph.
        modalities: Names of the modalities. (default: all of the graph)
        node_type: Node type of items.

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
    r"""Returns distinct names in sorted order. A string is a single name, and
    :obj:`None` stays :obj:`None`.
    """
    if isinstance(modalities, str):
        modalities = [modalities]
    if modalities is not None and not isinstance(modalities, Iterable):
        raise ValueError(f'modalities must be names, got {modalities!r}.')
    return None if modalities is None else sorted(set(modalities))


def item_mask(data: HeteroData, modality: str, node_type: str = ITEM) -> np.ndarray | None:
    r"""Returns which items have a modality, **[N]**, or :obj:`None` if all of
    them have it.

    Args:
        data: The graph.
        modality: Name of the modality.
        node_type: Node type of items.
    """
    mask = node_store(data, node_type).get(f'mask_{modality}')
    return None if mask is None else as_array(mask).astype(bool)


def item_features(
    data: HeteroData, modality: str, node_type: str = ITEM, fill: Tensor | None = None
) -> np.ndarray:
    r"""Returns the features of a modality, **[N, d]**.

    Args:
        data: The graph.
        modality: Name of the modality.
        node_type: Node type of items.
        fill: The row that replaces rows with NaN or infinite values of items
            that lack the modality, **[d]**. (default: zeros)

    Raises:
        ValueError: If the features are missing, are not a matrix, or are not
            finite.
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
        hint = f"data['{node_type}'].mask_{modality}, False where an item lacks '{modality}'"
        raise ValueError(f'{error} (or {hint})') from None


def check_matrix(
    x: Matrix, name: str, mask: np.ndarray | None = None, fill: Tensor | None = None
) -> np.ndarray:
    r"""Returns a matrix as an array after checking its shape and values. Rows of
    items that lack the modality may contain anything: :obj:`fill` or zeros
    replace such rows if they have NaN or infinite values.

    Args:
        x: The matrix, **[N, d]**.
        name: Its name, for messages.
        mask: Which items have the modality, **[N]**. (default: all)
        fill: The replacement row, **[d]**. (default: zeros)

    Raises:
        ValueError: If :obj:`x` is not a numeric matrix, does not match
            :obj:`mask`, or contains NaN or infinite values in another row.
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
    r"""Converts a matrix to :obj:`numpy.ndarray`, without a copy if possible. A
    memory-mapped file stays memory-mapped.
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return x if isinstance(x, np.ndarray) else np.asarray(x)


def device_of(x: Matrix) -> torch.device:
    r"""Returns the device for results that are computed from a matrix."""
    return x.device if isinstance(x, Tensor) else torch.device('cpu')


def as_int(name: str, value: Any) -> int:
    r"""Converts a value of any integer type to :obj:`int`.

    Raises:
        ValueError: If the value is not an integer.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f'{name} must be an integer, got {value!r}.') from None


def arguments(transform: object, always: Sequence[str] = ()) -> str:
    r"""Formats the arguments of a transform that differ from their defaults,
    except those that do not affect the result (caching, block sizes and
    progress bars).

    Args:
        transform: The transform.
        always: Names of arguments to include in any case.
    """
    words = []
    for name, parameter in inspect.signature(type(transform)).parameters.items():
        value = getattr(transform, name)
        changed = value != parameter.default and name not in ('cache', 'verbose', 'block_size')
        if name in always or changed:
            words.append(f'{name}={value!r}')
    return ', '.join(words)


def as_block(x: np.ndarray, start: int, end: int, dtype: torch.dtype) -> Tensor:
    r"""Copies the rows from :obj:`start` up to (but excluding) :obj:`end`."""
    return torch.tensor(x[start:end], dtype=dtype)


def unique_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Finds the distinct rows of a matrix, in order of their first occurrence.
    Rows are equal if their bytes are.

    Args:
        x: The matrix, **[N, d]**, which may be a memory-mapped file.

    Returns:
        The position of the first occurrence of each distinct row, **[U]**, and
        the index of the distinct row that each row equals, **[N]**.
    """
    step = max(1, BLOCK_BYTES // max(1, x.shape[1] * x.itemsize))
    for seed in itertools.count():
        codes = [hash_rows(x[i : i + step], seed) for i in range(0, len(x), step)]
        code = np.concatenate([np.empty(0, np.uint64), *codes])
        _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        number = first.argsort().argsort()
        first, inverse = np.sort(first), number[inverse]
        copies = np.flatnonzero(first[inverse] != np.arange(len(x)))
        blocks = (copies[i : i + step] for i in range(0, len(copies), step))
        if all(np.array_equal(_bytes(x[i]), _bytes(x[first[inverse[i]]])) for i in blocks):
            break  # Otherwise, two different rows have the same hash.
    return first, inverse


def hash_rows(x: np.ndarray, seed: int = 0) -> np.ndarray:
    r"""Hashes the bytes of each row to 64 bits.

    Args:
        x: The matrix, **[n, d]**.
        seed: Selects the hash function.
    """
    rows = _bytes(x)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
    state, high = np.zeros(len(rows), np.uint64), np.empty(len(rows), np.uint64)
    factor = np.uint64(FACTOR + 2 * seed)
    for word in np.ascontiguousarray(rows.view(np.uint64).T):
        state ^= word
        state *= factor
        state ^= np.right_shift(state, np.uint64(32), out=high)
        state *= factor  # Otherwise, flipping signs in two words could cancel out.
    return state


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.uint8)
