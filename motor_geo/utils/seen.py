r"""The items of each user, prepared for look-ups of a few users among many."""

from __future__ import annotations

import torch
from torch import Tensor


def pairs_of(edge_index: Tensor, users: Tensor) -> Tensor:
    r"""Returns the pairs of some users, in the same order.

    Args:
        edge_index: Pairs (user, item). Pairs with a negative user are left out.
        users: Indices of users, which may repeat.

    Shapes:
        - **input:** pairs :math:`(2, E)`, user indices :math:`(U)`
        - **output:** pairs :math:`(2, n)`
    """
    user = edge_index[0]
    if users.numel() == 0 or user.numel() == 0:
        return edge_index[:, :0]
    last = int(users.max())
    asked = torch.zeros(last + 1, dtype=torch.bool, device=user.device)
    asked[users] = True
    keep = (user >= 0) & (user <= last)
    return edge_index[:, keep.logical_and_(asked[user.clamp(0, last)])]


class SeenItems:
    r"""Pairs of a user and an item, sorted by user once, so that the items of a
    few users are found without a pass over all pairs.

    Args:
        edge_index: Pairs (user, item) with non-negative indices.

    Shapes:
        - **input:** pairs :math:`(2, E)`
    """

    def __init__(self, edge_index: Tensor):
        user, item = edge_index.long()
        if bool((user[1:] < user[:-1]).any()):
            user, order = user.sort(stable=True)
            item = item[order]
        self.item = item
        count = user.bincount()
        self.ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])

    @property
    def device(self) -> torch.device:
        r"""Where the pairs are."""
        return self.item.device

    def of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        r"""The items of some users.

        Args:
            users: Indices of users, which may repeat and may have no items.

        Shapes:
            - **input:** user indices :math:`(U)`
            - **output:** positions in :obj:`users` in ascending order
              :math:`(n)`, item indices :math:`(n)`
        """
        known = users < self.ptr.numel() - 1
        index = torch.where(known, users, 0)
        if self.ptr.numel() == 1:
            return users[:0], self.item
        first = self.ptr[index]
        count = torch.where(known, self.ptr[index + 1] - first, 0)
        row = torch.arange(users.numel(), device=users.device).repeat_interleave(count)
        offset = torch.arange(row.numel(), device=users.device) - (count.cumsum(0) - count)[row]
        return row, self.item[first[row] + offset]

    def __len__(self) -> int:
        return self.item.numel()

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({len(self)} pairs)'
