r"""Row-wise functions of long tables that take fewer passes over them, or less
memory, than autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from motor_geo.nn.functional import matmul
from motor_geo.nn.functional.autocast import Function, autocasts, full_precision
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.parallel.user_index import UserIndex

_SPARSE = ContextVar('sparse', default=False)


@contextmanager
def row_gradients(enabled: bool = True) -> Iterator[None]:
    r"""Context in which the gradients of tables that :func:`table_rows` reads are
    sparse. The result is exact only if a loss reads a table once.
    """
    token = _SPARSE.set(enabled)
    try:
        yield
    finally:
        _SPARSE.reset(token)


def table_rows(table: Tensor, index: Tensor) -> Tensor:
    r"""Rows of a table, like :func:`torch.index_select`. Within
    :func:`row_gradients`, the backward pass does not fill a gradient as large as
    the table if that is a parameter.

    Shapes:
        - **input:** table :math:`(N, F)`, rows :math:`(B)`
        - **output:** features :math:`(B, F)`
    """
    if isinstance(index, UserIndex):  # Of all processes; each reads the rows of its own.
        return index.spread(table_rows(table, index.local))
    if not torch.compiler.is_compiling() and _SPARSE.get() and table.is_leaf:
        return F.embedding(index, table, sparse=True)
    return table.index_select(0, index)


@has_kernel
@full_precision
def normalize_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Scales rows to unit length,
    :math:`\mathbf{x} / \max(\| \mathbf{x} \|, \epsilon)`, like
    :func:`torch.nn.functional.normalize` along the last dimension.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** features :math:`(*, F)`
    """
    return F.normalize(x, dim=-1, eps=eps)


@normalize_rows.kernel
def _(x: Tensor, eps: float = 1e-12) -> Tensor:
    return _NormalizeRows.apply(x, eps)


class _NormalizeRows(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        out = x / norm.clamp_min(eps)
        ctx.eps = eps
        ctx.save_for_backward(out, norm)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out, norm = ctx.saved_tensors
        return normalize_grad(grad, out, norm, ctx.eps), None


def normalize_grad(grad: Tensor, out: Tensor, norm: Tensor, eps: float) -> Tensor:
    r"""The gradient of :math:`\mathbf{x}` from the gradient of its unit rows.

    Shapes:
        - **input:** gradient :math:`(*, F)`, unit rows :math:`(*, F)`, norms
          of :math:`\mathbf{x}` :math:`(*, 1)`
        - **output:** gradient :math:`(*, F)`
    """
    dot = (grad * out).sum(dim=-1, keepdim=True)
    dot = dot * (norm >= eps)  # Rows shorter than eps are divided by a constant.
    return torch.addcmul(grad, out, dot, value=-1).div_(norm.clamp_min(eps))


@has_kernel
@full_precision
def row_norm(x: Tensor) -> Tensor:
    r"""Euclidean norm of rows, :math:`\sqrt{\sum_k x_k^2}`. The gradient of a
    row of zeros is zero.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** norms :math:`(*)`
    """
    return torch.linalg.vector_norm(x, dim=-1)


@row_norm.kernel
def _(x: Tensor) -> Tensor:
    return _RowNorm.apply(x)


class _RowNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1)
        ctx.save_for_backward(x, norm)
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, norm = ctx.saved_tensors
        scale = (grad / norm).masked_fill_(norm == 0, 0)
        return x * scale.unsqueeze(-1)


@has_kernel
@full_precision
def frobenius_norm(x: Tensor) -> Tensor:
    r"""The Frobenius norm, :math:`\sqrt{\sum_{n,k} x_{n,k}^2}`. The gradient of
    zeros is zero. The backward pass of the kernel takes one pass less over
    :obj:`x` and gives the same bits.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** a scalar
    """
    return torch.linalg.vector_norm(x)


@frobenius_norm.kernel
def _(x: Tensor) -> Tensor:
    return _FrobeniusNorm.apply(x)


class _FrobeniusNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x)
        ctx.save_for_backward(x, norm)
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, norm = ctx.saved_tensors
        return (x / norm.masked_fill(norm == 0, math.inf)).mul_(grad)


@has_kernel
@full_precision
def second_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The sum of outer products of rows, :math:`\mathbf{X}^{\top} \mathbf{X}`,
    and its trace :math:`\sum_{n,k} x_{n,k}^2`. The backward pass of the kernel
    takes one matrix product instead of two. For symmetric gradients, it gives the
    same bits if a product does not depend on the layout of its arguments.

    Shapes:
        - **input:** features :math:`(N, F)`
        - **output:** sums :math:`(F, F)`, a scalar
    """
    return x.t() @ x, x.square().sum()


@second_moments.kernel
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _SecondMoments.apply(x)


class _SecondMoments(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        return x.t() @ x, x.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_trace: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # For a symmetric gradient, autograd adds this product twice, in this order.
        half = x @ ((grad + grad.t()) / 2)
        return (x * (2 * grad_trace)).add_(half).add_(half)


def inverse_norm(x: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Factors that scale rows to unit length,
    :math:`1 / \max(\| \mathbf{x} \|, \epsilon)`.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** factors :math:`(*, 1)`
    """
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(eps).reciprocal()


def mean_square(x: Tensor) -> Tensor:
    r"""Mean of squared entries. It sums over each row first, which is accurate
    for tables of any height, unlike a single norm of all entries.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** a scalar
    """
    return row_norm(x).square().sum() / x.numel()


#: Number of rows converted at a time (64 MB at width 4,096).
BLOCK = 4096


@has_kernel
def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""An affine map of long tables,
    :math:`\mathbf{X} \mathbf{W}^{\top} + \mathbf{b}`, like
    :func:`torch.nn.functional.linear`. The kernel uses the fastest matrix
    product available. If fixed features and weights differ in precision, it
    converts the features block by block in both passes and never copies the
    whole table.

    Shapes:
        - **input:** features :math:`(N, F)`, weight :math:`(d, F)`, bias
          :math:`(d)` *(optional)*
        - **output:** vectors :math:`(N, d)`
    """
    return F.linear(x.to(weight.dtype), weight, bias)


@project.kernel
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.to(weight.dtype) if x.requires_grad else x
    if autocasts(x) or (x.dtype == weight.dtype and not matmul.prefers_onednn(x)):
        return F.linear(x, weight, bias)
    out = _Project.apply(x, weight)
    return out if bias is None else out.add_(bias)


class _Project(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight if ctx.needs_input_grad[0] else None)
        ctx.dtype = weight.dtype
        if x.dtype == weight.dtype:
            return matmul.linear(x, weight)
        return torch.cat([matmul.linear(rows.to(weight.dtype), weight) for rows in x.split(BLOCK)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        if x.dtype == ctx.dtype:
            grad_x = None if weight is None else matmul.linear(grad, weight.t())
            return grad_x, matmul.linear_grad(grad, x)
        out = grad.new_zeros(grad.size(1), x.size(1))
        for rows, upstream in zip(x.split(BLOCK), grad.split(BLOCK)):
            out.add_(matmul.linear_grad(upstream, rows.to(ctx.dtype)))
        return None, out


#: Number of rows above which intermediate results are recomputed, and size of a block.
LONG = 32_768


def checkpoint_rows(function: Callable[..., Tensor], *tables: Tensor | None) -> Tensor:
    r"""Applies a row-wise function. Long tables are split into blocks, and the
    backward pass recomputes the intermediate results of every block in place
    of storing them.

    Args:
        function: Function that returns as many rows as it receives.
        tables: Arguments of the function. :obj:`None` is passed on unchanged.

    Shapes:
        - **input:** features :math:`(N, *)` each
        - **output:** features :math:`(N, *)`
    """
    size = next(table.size(0) for table in tables if table is not None)
    if size <= LONG or not torch.is_grad_enabled():
        return function(*tables)
    outs = []
    for start in range(0, size, LONG):
        rows = (None if table is None else table[start : start + LONG] for table in tables)
        outs.append(checkpoint(function, *rows, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(outs)
