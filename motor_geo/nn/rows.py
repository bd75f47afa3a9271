r"""Row-wise functions whose gradients take fewer passes over a table than
autograd needs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def normalize_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Scales rows to unit length, as
    :func:`torch.nn.functional.normalize` does along the last dimension.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** features :math:`(*, F)`
    """
    return _Normalize.apply(x, eps)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, eps: float):  # type: ignore
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        out = x / norm.clamp_min(eps)
        ctx.eps = eps
        ctx.save_for_backward(out, norm)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore
        out, norm = ctx.saved_tensors
        return normalize_grad(grad, out, norm, ctx.eps), None


def normalize_grad(grad: Tensor, out: Tensor, norm: Tensor, eps: float) -> Tensor:
    r"""The gradient of :math:`\mathbf{x}` from that of its unit rows.

    Shapes:
        - **input:** gradient :math:`(*, F)`, unit rows :math:`(*, F)`, norms
          of :math:`\mathbf{x}` :math:`(*, 1)`
        - **output:** gradient :math:`(*, F)`
    """
    dot = (grad * out).sum(dim=-1, keepdim=True)
    dot = dot * (norm >= eps)  # Shorter rows are scaled by a constant.
    return torch.addcmul(grad, out, dot, value=-1).div_(norm.clamp_min(eps))


def row_norm(x: Tensor) -> Tensor:
    r"""The Euclidean norm of rows, as :func:`torch.linalg.vector_norm`
    computes it.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** norms :math:`(*)`
    """
    return _Norm.apply(x)


def mean_square(x: Tensor) -> Tensor:
    r"""The mean of squared entries. Adding up rows first is exact enough for
    tables of any height, which one norm of all entries is not.

    Shapes:
        - **input:** features :math:`(*, F)`
        - **output:** a scalar
    """
    return row_norm(x).square().sum() / x.numel()


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor):  # type: ignore
        norm = torch.linalg.vector_norm(x, dim=-1)
        ctx.save_for_backward(x, norm)
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore
        x, norm = ctx.saved_tensors
        scale = (grad / norm).masked_fill_(norm == 0, 0)
        return x * scale.unsqueeze(-1)
