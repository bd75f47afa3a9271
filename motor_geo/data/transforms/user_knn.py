r"""User-user graphs based on common items."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType
from torch_geometric.utils import softmax

from motor_geo.data.transforms.features import arguments, as_int, edge_type_of
from motor_geo.typing import RATES, checked_edges, num_nodes, similar_users
from motor_geo.utils.cache import cached, fingerprint


class UserKNN(BaseTransform):
    r"""Connects each user to the :math:`k` users with the most training items
    in common, from the `"DualGNN: Dual Graph Neural Network for Multimedia
    Recommendation" <https://doi.org/10.1109/TMM.2021.3138298>`_ paper.

    With :math:`c_{uv}` the number of common items and :math:`\mathcal{T}(u)`
    the :math:`k` users :math:`v \neq u` with the largest :math:`c_{uv} > 0`
    (equal counts in ascending order of users),

    .. math::
        S_{uv} = \frac{\exp(c_{uv})}{\sum_{w \in \mathcal{T}(u)} \exp(c_{uw})},
        \quad v \in \mathcal{T}(u) .

    Counts are not scaled, so nearly all of the weight is on one user if there
    are many common items. A user who shares items with fewer than :math:`k`
    others has fewer edges, and a user who shares no items has none.

    Adds :obj:`edge_index` (row 0 the neighbor :math:`v`, row 1 the user
    :math:`u`, ordered by :math:`u`, largest count first) and
    :obj:`edge_weight` to :obj:`data['user', 'similar', 'user']`. Duplicate
    interactions count once.

    Args:
        k: Number of neighbors.
        block_size: Number of pairs of users with common items to hold in memory
            at a time, unless a single user has more.
        cache: If set to :obj:`True`, caches neighbors on disk, keyed by the
            interactions and :obj:`k`.
        edge_type: Edge type of interactions, from users to items.

    Shapes:
        - **output:** edge index :math:`(2, E)` and edge weight :math:`(E)`,
          with :math:`E \leq M k`

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        k: int = 40,
        block_size: int = 2**23,
        cache: bool = True,
        edge_type: EdgeType = RATES,
    ) -> None:
        k, block_size = as_int('k', k), as_int('block_size', block_size)
        if k < 1 or block_size < 1:
            raise ValueError(f'k and block_size must be at least 1, got {k} and {block_size}.')
        self.k = k
        self.block_size = block_size
        self.cache = cache
        self.edge_type = edge_type_of(edge_type)

    @torch.inference_mode(False)
    @torch.no_grad()
    def forward(self, data: HeteroData) -> HeteroData:
        edge_index = checked_edges(data, self.edge_type)
        users, _, items = self.edge_type
        num_users, num_items = num_nodes(data, users), num_nodes(data, items)
        key = (edge_index[0].long() * num_items + edge_index[1]).unique().cpu()
        user, item = key // max(num_items, 1), key % max(num_items, 1)

        def compute() -> dict[str, Tensor]:
            ptr, neighbor, count = common_items(
                user.numpy(), item.numpy(), (num_users, num_items), self.k, self.block_size
            )
            return {
                'ptr': torch.from_numpy(ptr),
                'neighbor': torch.from_numpy(neighbor),
                'count': torch.from_numpy(count),
            }

        if self.cache:
            sizes = num_users, num_items
            state = cached('user_knn', fingerprint('UserKNN.1', user, item, sizes, self.k), compute)
        else:
            state = compute()
        target = torch.arange(num_users).repeat_interleave(state['ptr'].diff())
        weight = softmax(state['count'].double(), target, num_nodes=num_users)
        graph = data[similar_users(users)]
        graph.edge_index = torch.stack([state['neighbor'], target]).to(edge_index.device)
        graph.edge_weight = weight.to(edge_index.device, torch.get_default_dtype())
        return data

    def extend(self, old: HeteroData, new: HeteroData) -> HeteroData:
        r"""Copies the user graph. New items do not change it, since nobody has
        interacted with them yet.

        Args:
            old: The graph with the user graph of this transform.
            new: The graph with additional items.
        """
        out, edge_type = copy.copy(new), similar_users(self.edge_type[0])
        if edge_type in old.edge_types:
            out[edge_type].update(old[edge_type])
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({arguments(self, ("k",))})'


def common_items(
    user: np.ndarray, item: np.ndarray, size: tuple[int, int], k: int, block_size: int = 2**23
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Finds, for each user, the :math:`k` others with the most items in common,
    in descending order of the number of common items. Ties are in ascending
    order of users.

    Args:
        user: User of every distinct interaction, in ascending order, **[E]**.
        item: Item of every interaction, **[E]**.
        size: The numbers of users and of items.
        k: Maximum number of neighbors per user.
        block_size: Number of pairs to hold in memory at a time.

    Returns:
        Pointers **[M + 1]**, and the concatenated neighbors and numbers of
        common items of all users.
    """
    from scipy.sparse import csr_array

    matrix = csr_array((np.ones(user.size, dtype=np.int32), (user, item)), shape=size)
    transpose = matrix.T.tocsr()
    # The number of users, and the users of all of a user's items, bound the number of neighbors.
    degree = np.bincount(item, minlength=size[1])
    pairs = np.minimum(np.bincount(user, degree[item], minlength=size[0]), size[0])
    block = (np.cumsum(pairs) / block_size).astype(np.int64)
    starts = [*np.flatnonzero(np.diff(block, prepend=-1)), size[0]]
    counts, neighbors, lengths = [], [], [np.zeros(1, np.int64)]
    for start, end in zip(starts[:-1], starts[1:]):
        rows, neighbor, count = _largest(matrix[start:end] @ transpose, start, k)
        counts.append(count)
        neighbors.append(neighbor)
        lengths.append(np.bincount(rows, minlength=end - start))
    ptr = np.cumsum(np.concatenate(lengths))
    empty = np.empty(0, np.int64)
    return ptr, np.concatenate([empty, *neighbors]), np.concatenate([empty, *counts])


def _largest(common: object, start: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Returns the rows, columns and values of the :obj:`k` largest off-diagonal
    entries of each row. The first row of the block is user :obj:`start`.
    """
    entries = common.tocoo()  # type: ignore[attr-defined]
    row, column = entries.row.astype(np.int64), entries.col.astype(np.int64)
    value = entries.data.astype(np.int64)
    off = column != row + start
    row, column, value = row[off], column[off], value[off]
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    first = np.searchsorted(row, row, side='left')
    keep = np.arange(row.size) - first < k
    return row[keep], column[keep], value[keep]
