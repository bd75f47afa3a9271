r"""The nodes of a batch, every one once where that need not be waited for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Devices that one does not wait for when a size depends on values.
SYNCHRONOUS = ('cpu',)


def synchronous(x: Tensor) -> bool:
    r"""Whether a size may depend on the values of a tensor."""
    return x.device.type in SYNCHRONOUS


class Distinct(NamedTuple):
    r"""Nodes of a batch, every one once."""

    node: Tensor  # [D]
    inverse: Tensor  # [B]: where the nodes of the batch are among them
    times: Tensor  # [D]: how often they occur


def distinct(index: Tensor) -> Distinct:
    r"""The distinct nodes of a batch. On an accelerator, where one would have
    to wait for their number, these are all nodes of the batch.

    Shapes:
        - **input:** nodes :math:`(B)`
    """
    if synchronous(index):
        return Distinct(*torch.unique(index, return_inverse=True, return_counts=True))
    position = torch.arange(index.numel(), device=index.device)
    return Distinct(index, position, torch.ones_like(index))
