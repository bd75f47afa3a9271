r"""Scores of the triples of a batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.functional.rows import frobenius_norm

#: Number of entries of a block. The rows of a block and their gradients stay in the cache.
BLOCK = 2**16


@has_kernel
@full_precision
def scores_and_norms(user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Scores of the positive and the negative items of a batch, and the Frobenius
    norms of the three matrices: users, positive items, negative items. On CPUs,
    the backward pass of the kernel computes the whole gradient of a block of rows
    at a time, which large batches gain most from. Values and gradients have the
    same bits.

    Shapes:
        - **input:** user vectors :math:`(B, F)`, vectors of all positive and
          then all negative items :math:`(2B, F)`
        - **output:** scores :math:`(B)` and :math:`(B)`, norms :math:`(3)`
    """
    pos, neg = item.chunk(2)
    scores = (user * pos).sum(dim=-1), (user * neg).sum(dim=-1)
    return *scores, torch.stack([frobenius_norm(x) for x in (user, pos, neg)])


@scores_and_norms.kernel
def _(user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _ScoresAndNorms.apply(user, item)


class _ScoresAndNorms(Function):
    @staticmethod
    def forward(ctx: Any, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.size = max(BLOCK // user.size(1), 1) if user.device.type == 'cpu' else user.size(0)
        out = user.new_empty(2, user.size(0))
        buffer = _buffer(user, ctx.size)
        for x, own in zip(item.chunk(2), out):
            for u, i, score in zip(*(y.split(ctx.size) for y in (user, x, own))):
                torch.sum(torch.mul(u, i, out=buffer[: u.size(0)]), dim=-1, out=score)
        norms = torch.stack([torch.linalg.vector_norm(x) for x in (user, *item.chunk(2))])
        ctx.save_for_backward(user, item, norms.masked_fill(norms == 0, math.inf))
        return out[0], out[1], norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pos: Tensor, neg: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        user, item, norms = ctx.saved_tensors
        grad_user, grad_item = torch.empty_like(user), torch.empty_like(item)
        tables = user, *item.chunk(2), grad_user, *grad_item.chunk(2)
        columns = pos.unsqueeze(-1), neg.unsqueeze(-1)
        buffer = _buffer(user, ctx.size)
        # The sums have the order of autograd.
        for u, i, j, du, di, dj, a, b in zip(*(x.split(ctx.size) for x in (*tables, *columns))):
            product = buffer[: u.size(0)]
            for x, out, size, scale in zip((u, i, j), (du, di, dj), norms, norm):
                torch.div(x, size, out=out).mul_(scale)
            du.add_(torch.mul(j, b, out=product)).add_(torch.mul(i, a, out=product))
            di.add_(torch.mul(u, a, out=product))
            dj.add_(torch.mul(u, b, out=product))
        return grad_user, grad_item


def _buffer(x: Tensor, size: int) -> Tensor:
    return x.new_empty(min(size, x.size(0)), x.size(1))
