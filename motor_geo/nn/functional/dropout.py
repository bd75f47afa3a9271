r"""Dropout and noise for features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.nn.functional.rows import normalize_rows
from motor_geo.parallel.user_shard import UserShard


def drop_entries(x: Tensor, p: float) -> Tensor:
    r"""Dropout that is always active, in training and in evaluation: sets entries
    to zero with probability :math:`p` and divides the others by :math:`1 - p`.

    Args:
        x: Features.
        p: Dropout probability :math:`p`.

    Shapes:
        - **input:** features of any shape
        - **output:** features of the same shape
    """
    if p == 0 or x.is_cuda:
        return F.dropout(x, p)
    # Drawing uniform numbers is several times faster than drawing Bernoulli numbers.
    return x * (uniform_like(x) >= p) / (1 - p)


def uniform_like(x: Tensor) -> Tensor:
    r"""Uniform random numbers in :math:`[0, 1)`. Half-precision tensors get the
    same numbers as float32 tensors, in float32.

    Shapes:
        - **input:** a tensor of any shape
        - **output:** a tensor of the same shape
    """
    return torch.rand_like(x, dtype=torch.promote_types(x.dtype, torch.float))


def perturb_rows(x: Tensor, length: float, shard: UserShard | None = None) -> Tensor:
    r"""Adds noise of a given length to every row, with the signs of that row,

    .. math::
        \mathbf{x} + \epsilon \, \textrm{sign}(\mathbf{x}) \odot
        \frac{\boldsymbol{\omega}}{\| \boldsymbol{\omega} \|}, \qquad
        \omega_k \sim \mathcal{U}[0, 1) .

    Args:
        x: Features.
        length: Length :math:`\epsilon` of the noise.
        shard: The part of all users that the rows belong to. All processes draw
            for all users.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** features :math:`(*, F)`
    """
    noise = torch.rand_like(x if shard is None else x.new_empty(shard.num_users, *x.shape[1:]))
    noise = noise if shard is None else noise[shard.first : shard.last]
    return x + length * x.sign() * normalize_rows(noise)
