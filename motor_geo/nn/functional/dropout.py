r"""Noise in features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.functional.rows import normalize_rows


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
    return x * (uniform_like(x) >= p) / (1 - p)


def uniform_like(x: Tensor) -> Tensor:
    r"""Uniform numbers, the same ones for half and for single precision.

    Shapes:
        - **input:** numbers of any shape
        - **output:** numbers of the same shape
    """
    return torch.rand_like(x, dtype=torch.promote_types(x.dtype, torch.float))


def perturb_rows(x: Tensor, length: float) -> Tensor:
    r"""Adds noise of a given length to every row, in the orthant of that row,

    .. math::
        \mathbf{x} + \epsilon \, \textrm{sign}(\mathbf{x}) \odot
        \frac{\boldsymbol{\omega}}{\| \boldsymbol{\omega} \|}, \qquad
        \omega_k \sim \mathcal{U}[0, 1) .

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** features :math:`(*, F)`
    """
    return x + length * x.sign() * normalize_rows(torch.rand_like(x))
