r"""Finds the nearest rows of a feature matrix by cosine similarity, exactly and in
blocks.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.data.transforms.features import check_matrix, unique_rows
from motor_geo.utils.topk import topk

WEIGHTINGS = ('binary', 'cosine')


MAX_VALUES = 2**26  # Maximum number of values of the normalized rows in memory.
#: In smaller products, several threads share a sum, and rounding depends on their number.
SMALL = 2**20


def knn_graph_cosine(
    x: Tensor | np.ndarray, k: int, block_size: int = 1024
) -> tuple[Tensor, Tensor]:
    r"""Finds, for each row, the row itself and the :math:`k - 1` other rows
    with the largest cosine similarity.

    The result is exact and takes :math:`\mathcal{O}(N k)` memory in addition to
    :obj:`x`, which may have half precision or be a memory-mapped file. Rows
    with equal similarity come in ascending order, but each row is the first in
    its own list. A zero row has no direction, so its list contains only itself
    (the other entries repeat its index with similarity zero). It is a neighbor
    of another row only if there are not enough nonzero rows.

    Args:
        x: Feature matrix, **[N, d]**.
        k: Length of the lists, including the row itself.
        block_size: Number of rows to compare at once.

    Returns:
        Indices and similarities in descending order, **[N, k]** each.

    Raises:
        ValueError: If :obj:`k` exceeds the number of rows, or a row contains
            NaN or infinite values.
    """
    array = check_matrix(x, 'The feature matrix')
    num_rows = array.shape[0]
    if not 1 <= k <= num_rows:
        raise ValueError(f'k must be between 1 and the number of rows ({num_rows}), got {k}.')
    # Comparing equal rows only once makes their similarities tie exactly.
    first, inverse = unique_rows(array)
    group, value = nearest(array, first, array, first, min(k, first.size), block_size, own=True)
    index, similarity = _expand(group, value, inverse, k)
    index, similarity = index[inverse], similarity[inverse]
    return self_first(index, similarity, torch.arange(num_rows), is_zero(array))


def attach(
    x_old: Tensor | np.ndarray, x_new: Tensor | np.ndarray, k: int, block_size: int = 1024
) -> tuple[Tensor, Tensor]:
    r"""Connects new rows to old ones. The list of a new row consists of itself
    and its :math:`k - 1` nearest old rows.

    Args:
        x_old: Feature matrix of the catalog, **[N, d]**.
        x_new: Feature matrix of the new rows, **[n, d]**.
        k: Length of the lists, including the row itself.
        block_size: Number of rows to compare at once.

    Returns:
        Indices and similarities, **[n, k]** each. An index below :math:`N`
        refers to an old row, and :math:`N + r` refers to the new row :math:`r`.

    Raises:
        ValueError: If the widths differ, :obj:`k` exceeds :math:`N + 1`, or
            a row contains NaN or infinite values.
    """
    old = check_matrix(x_old, 'The old feature matrix')
    new = check_matrix(x_new, 'The new feature matrix')
    num_old, num_new = old.shape[0], new.shape[0]
    if old.shape[1] != new.shape[1]:
        raise ValueError(
            f'The new rows have {new.shape[1]} columns, expected {old.shape[1]} as in the old ones.'
        )
    if not 1 <= k <= num_old + 1:
        raise ValueError(f'k must be between 1 and {num_old + 1} (old rows plus one), got {k}.')
    own = torch.arange(num_old, num_old + num_new)
    dtype = _dtype(new)
    index, similarity = torch.empty(num_new, 0, dtype=torch.long), torch.empty(num_new, 0)
    if k > 1:
        first, inverse = unique_rows(old)
        rows = np.arange(num_new)
        group, value = nearest(new, rows, old, first, min(k - 1, first.size), block_size)
        index, similarity = _expand(group, value, inverse, k - 1)
    index = torch.cat([own.view(-1, 1), index], dim=1)
    similarity = torch.cat([torch.ones(num_new, 1), similarity], dim=1).to(dtype)
    return self_first(index, similarity, own, is_zero(new))


def knn_weights(
    index: Tensor, similarity: Tensor, weighting: str, old_degree: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Converts lists of neighbors to :obj:`edge_index` (row 0 the neighbor
    :math:`j`, row 1 the row :math:`i`, ordered by :math:`i`) and
    :obj:`edge_weight`
    :math:`S_{ij} = W_{ij} / \sqrt{D_i D_j}` with :math:`D_i = \sum_j W_{ij}`,
    where :math:`W_{ij}` is one (:obj:`"binary"`) or the similarity
    (:obj:`"cosine"`).

    Args:
        index: Indices from :meth:`knn_graph_cosine` or :meth:`attach`,
            **[n, k]**.
        similarity: Their similarities, **[n, k]**.
        weighting: :obj:`"binary"` or :obj:`"cosine"`.
        old_degree: Row sums of the old rows, **[N]**, required for the lists
            from :meth:`attach`.

    Returns:
        The edge index **[2, E]** and the edge weights **[E]**.

    Raises:
        ValueError: If the similarities of a row do not have a positive sum.
    """
    num_old = 0 if old_degree is None else old_degree.numel()
    own = num_old + torch.arange(index.size(0), device=index.device).view(-1, 1)
    keep = index != own
    keep[:, 0] = True  # The other entries of a zero row repeat its index.
    weight = similarity if weighting == 'cosine' else torch.ones_like(similarity)
    weight = weight * keep
    degree = weight.sum(dim=1)
    if bool((degree <= 0).any()):
        row = int((degree <= 0).nonzero()[0])
        raise ValueError(
            f'The similarities of row {row} to its {index.size(1)} nearest rows do not add up to '
            f"a positive number; expected a smaller k or weighting='binary'."
        )
    neighbor = degree if old_degree is None else torch.cat([old_degree.to(degree), degree])
    weight = weight / (degree.view(-1, 1) * neighbor[index]).sqrt()
    return torch.stack([index[keep], own.expand_as(index)[keep]]), weight[keep]


def _dtype(x: np.ndarray) -> torch.dtype:
    return torch.double if x.dtype == np.float64 else torch.float


def is_zero(x: np.ndarray) -> Tensor:
    blocks = [~np.any(x[i : i + 4096] != 0, axis=1) for i in range(0, x.shape[0], 4096)]
    return torch.from_numpy(np.concatenate([np.empty(0, dtype=bool), *blocks]))


def unit_rows(x: np.ndarray, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
    block = torch.tensor(x[rows], dtype=dtype)
    scale = block.abs().amax(dim=1, keepdim=True)  # Otherwise, squares may over- or underflow.
    return F.normalize(block / scale.masked_fill(scale == 0, 1.0))


def nearest(
    query: np.ndarray,
    query_rows: np.ndarray,
    base: np.ndarray,
    base_rows: np.ndarray,
    k: int,
    block_size: int,
    own: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Returns the positions in :obj:`base_rows` and the similarities of the
    nearest rows. Zero rows come last. With :obj:`own`, queries and base are the
    same rows, each row comes first in its own list, and each pair of blocks is
    multiplied only once.
    """
    dtype = _dtype(query)
    zero = is_zero(base)[torch.from_numpy(base_rows)]
    value = torch.full((query_rows.size, k), -torch.inf, dtype=dtype)
    index = torch.zeros(query_rows.size, k, dtype=torch.long)

    def merge(rows: slice, block: Tensor, begin: int) -> None:
        best, chosen = top(block, min(k, block.size(1)))
        best = torch.cat([value[rows], best], dim=1)
        chosen = torch.cat([index[rows], chosen + begin], dim=1)
        value[rows], order = top(best, k)
        index[rows] = chosen.gather(1, order)

    wide = 8 * block_size
    large = wide * max(1, MAX_VALUES // (wide * max(1, base.shape[1])))
    for left in range(0, base_rows.size, large):
        unit = unit_rows(base, base_rows[left : left + large], dtype)
        last = left + unit.size(0) if own else query_rows.size
        for start in range(0, last, block_size):
            rows = slice(start, start + block_size)
            x = unit_rows(query, query_rows[rows], dtype)
            # The transposed block already covered everything left of the diagonal.
            first = max(left, start // wide * wide) if own else left
            for begin in range(first, left + unit.size(0), wide):
                block = product(x, unit[begin - left : begin - left + wide])
                columns = slice(begin, begin + block.size(1))
                # Values outside of [-1, 1] determine the order and are replaced below.
                block[:, zero[columns]] = -2
                if own and start >= begin:
                    number = torch.arange(x.size(0))
                    block[number, number + start - begin] = 2
                merge(rows, block, begin)
                if own and start < begin:
                    block[zero[rows]] = -2
                    merge(columns, block.t().contiguous(), start)
    value = value.masked_fill(value == -2, 0.0).masked_fill(value == 2, 1.0)
    return index, value


def product(x: Tensor, y: Tensor) -> Tensor:
    r"""Returns all inner products of rows, bit for bit the same for any number
    of threads.
    """
    if x.size(0) * y.size(0) >= SMALL:
        return x @ y.t()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return x @ y.t()
    finally:
        torch.set_num_threads(threads)


def top(value: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""Returns the :obj:`k` largest entries of each row in descending order, and
    equal ones from left to right (an order that :func:`torch.topk` does not
    guarantee).
    """
    best, chosen = topk(value, min(k + 1, value.size(1)))
    tied = (best[:, k - 1 :].diff(dim=1) == 0).any(dim=1).nonzero().view(-1)
    chosen = chosen[:, :k].sort(dim=1).values
    order = value.gather(1, chosen).sort(dim=1, descending=True, stable=True).indices
    chosen = chosen.gather(1, order)
    if tied.numel() > 0:
        chosen[tied] = value[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return value.gather(1, chosen), chosen


def _expand(
    group: Tensor, similarity: Tensor, inverse: np.ndarray, k: int
) -> tuple[Tensor, Tensor]:
    r"""Replaces each distinct row by its copies in ascending order, and cuts the
    lists after :obj:`k` entries.
    """
    number = torch.from_numpy(inverse)
    members = number.argsort(stable=True)
    count = number.bincount()
    begin = count.cumsum(0) - count
    end = count[group].cumsum(dim=1)
    slot = torch.arange(k).expand(group.size(0), -1).contiguous()
    source = torch.searchsorted(end, slot, right=True)
    chosen = group.gather(1, source)
    offset = slot - (end.gather(1, source) - count[chosen])
    return members[begin[chosen] + offset], similarity.gather(1, source)


def self_first(
    index: Tensor, similarity: Tensor, own: Tensor, zero: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Moves each row to the front of its list. If copies of a row pushed it out
    of its list, it replaces the last entry.
    """
    own = own.view(-1, 1)
    found = index == own
    found[~found.any(dim=1), -1] = True
    index = torch.where(found, own, index)
    similarity = similarity.masked_fill(found, 1.0)
    order = (~found).to(torch.uint8).sort(dim=1, stable=True).indices
    index, similarity = index.gather(1, order), similarity.gather(1, order)
    index[zero] = own[zero]
    similarity[zero, 1:] = 0.0
    return index, similarity
