from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def drop_entries(x: Tensor, p: float) -> Tensor:
    r"""Dropout in training and out of it: entries are zero with probability
    :math:`p`, and the others are divided by :math:`1 - p`.

    Shapes:
        - **input:** features of any shape
        - **output:** features of the same shape
    """
    if p == 0 or x.is_cuda:
        return F.dropout(x, p)
    # Uniform numbers are drawn several times faster than Bernoulli's.
    return x * (torch.rand_like(x) >= p) / (1 - p)
