r"""Finds the largest entries of long rows."""

from __future__ import annotations

import torch
from torch import Tensor

#: Number of parts to cut a row into, and the minimum length for which this is faster, in
#: multiples of :math:`k`.
PARTS, LONG = 8, 16


def topk(x: Tensor, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    r"""Finds the :obj:`k` largest entries of every row. It is two to three times
    faster than :func:`torch.topk` for long rows on CPUs, but may select
    different ones among equal entries.

    It cuts each row into parts of equal length and stacks them. A column of the
    stack contains one of the :obj:`k` largest entries only if its maximum is
    among the :obj:`k` largest column maxima. It therefore searches only these
    :obj:`k` columns, which it finds recursively.

    Args:
        x: Rows.
        k: Number of entries, at most :math:`N`.
        sorted: If set to :obj:`True`, returns entries in descending order.
            Otherwise, their order is unspecified.

    Shapes:
        - **input:** rows :math:`(B, N)`
        - **output:** values and columns :math:`(B, k)`
    """
    if x.device.type != 'cpu' or x.size(1) < LONG * max(k, 1):
        value, index = x.topk(k, dim=1, sorted=sorted)
        return value, index
    length = x.size(1) // PARTS
    stack = x[:, : length * PARTS].unflatten(1, (PARTS, length))
    column = topk(stack.amax(dim=1), k, sorted=False)[1]
    start = torch.arange(0, length * PARTS, length).view(1, -1, 1)
    rest = torch.arange(length * PARTS, x.size(1)).expand(x.size(0), -1)
    index = torch.cat([(column.unsqueeze(1) + start).flatten(1), rest], dim=1)
    value, place = x.gather(1, index).topk(k, dim=1, sorted=sorted)
    return value, index.gather(1, place)
