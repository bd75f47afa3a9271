r"""Solving linear systems whose matrix is known by its products only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def conjugate_gradient(
    matmul: Callable[[Tensor], Tensor],
    target: Tensor,
    x: Tensor,
    diagonal: Tensor,
    num_steps: int,
    dim: int | None = None,
) -> Tensor:
    r"""Steps of the preconditioned conjugate gradient method towards the
    solution of :math:`\mathbf{A} \mathbf{x} = \mathbf{b}`, with
    :math:`\mathbf{A}` symmetric and positive definite.

    Args:
        matmul: Gives :math:`\mathbf{A} \mathbf{x}`.
        target: :math:`\mathbf{b}`.
        x: Where to start.
        diagonal: Positive weights that the residual is divided by, at best the
            diagonal of :math:`\mathbf{A}`.
        num_steps: Number of steps.
        dim: If given, slices along this dimension are systems that do not
            depend on each other, and each takes steps of its own length.

    Shapes:
        - **input:** tensors of one shape
        - **output:** the same shape
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum() if dim is None else (a * b).sum(dim, keepdim=True)

    def ratio(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(b > 0, a / b, 0)

    # What is solved up to rounding stays: further steps would divide noise by noise.
    number = torch.finfo(target.dtype)
    least = (number.eps**2 * dot(target, target / diagonal)).clamp(min=number.tiny)
    residual = target - matmul(x)
    scaled = residual / diagonal
    step, product = scaled, dot(residual, scaled)
    for _ in range(num_steps):
        image = matmul(step)
        # A direction that the matrix takes to nothing but rounding would be followed too far.
        bend = dot(step, image)
        use = (product > least) & (bend > 64 * number.eps * dot(step, diagonal * step))
        length = torch.where(use, ratio(product, bend), 0)
        x = x + length * step
        residual = residual - length * image
        scaled = residual / diagonal
        before, product = product, dot(residual, scaled)
        step = scaled + ratio(product, before) * step
    return x
