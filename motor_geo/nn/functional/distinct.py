r"""Distinct nodes of a batch, on devices where computing them does not require
synchronization.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Devices on which a size that depends on values needs no synchronization.
SYNCHRONOUS = ('cpu',)


def synchronous(x: Tensor) -> bool:
    r"""Whether sizes may depend on the values of a tensor without synchronization."""
    return x.device.type in SYNCHRONOUS


class Distinct(NamedTuple):
    r"""Nodes of a batch without repetition, see :func:`distinct`."""

    node: Tensor  # [D]
    inverse: Tensor  # [B]: position of every node of the batch in `node`
    times: Tensor  # [D]: number of occurrences


def distinct(index: Tensor) -> Distinct:
    r"""The distinct nodes of a batch. On an accelerator, their number would require
    synchronization, so all nodes of the batch are returned, repetitions
    included.

    Shapes:
        - **input:** nodes :math:`(B)`
    """
    if synchronous(index):
        return Distinct(*torch.unique(index, return_inverse=True, return_counts=True))
    position = torch.arange(index.numel(), device=index.device)
    return Distinct(index, position, torch.ones_like(index))
