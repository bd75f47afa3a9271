from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class EdgePart(NamedTuple):
    r"""Successive edges of a graph."""

    edge_index: Tensor  # [2, E_p]
    start: int  # Position of the first one among all edges.
    num_edges: int  # Number of all edges.


def edge_parts(edge_index: Tensor) -> Callable[[int, int], EdgePart]:
    r"""Returns a function that cuts edges that are sorted by user.

    Raises:
        ValueError: If they are not.
    """
    user = edge_index[0].contiguous()
    if bool((user[1:] < user[:-1]).any()):
        raise ValueError(
            'Processes share interactions that are sorted by user, got others; expected those of '
            "a data set, or 'edge_index[:, edge_index[0].argsort(stable=True)]'"
        )

    def part(first: int, last: int) -> EdgePart:
        start, end = torch.searchsorted(user, user.new_tensor([first, last])).tolist()
        return EdgePart(edge_index[:, start:end], start, user.numel())

    return part
