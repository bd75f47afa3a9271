r"""The conjugate gradient method for linear systems given by matrix-vector
products.
"""

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
    r"""Takes steps of the preconditioned conjugate gradient method towards the
    solution of :math:`\mathbf{A} \mathbf{x} = \mathbf{b}`, where
    :math:`\mathbf{A}` is symmetric and positive definite.

    Args:
        matmul: Function that computes :math:`\mathbf{A} \mathbf{x}`.
        target: Right-hand side :math:`\mathbf{b}`.
        x: Starting point.
        diagonal: Positive preconditioner that divides the residual, ideally the
            diagonal of :math:`\mathbf{A}`.
        num_steps: Number of steps.
        dim: If given, the inner products sum over this dimension only. The
            tensors then hold independent systems, each with its own step size.

    Shapes:
        - **input:** tensors of the same shape
        - **output:** a tensor of that shape
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum() if dim is None else (a * b).sum(dim, keepdim=True)

    def ratio(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(b > 0, a / b, 0)

    # A system that is solved up to rounding stops: further steps would divide noise by noise.
    number = torch.finfo(target.dtype)
    least = (number.eps**2 * dot(target, target / diagonal)).clamp(min=number.tiny)
    residual = target - matmul(x)
    scaled = residual / diagonal
    step, product = scaled, dot(residual, scaled)
    for _ in range(num_steps):
        image = matmul(step)
        # If the matrix maps a direction to rounding errors only, the step would be too long.
        bend = dot(step, image)
        use = (product > least) & (bend > 64 * number.eps * dot(step, diagonal * step))
        length = torch.where(use, ratio(product, bend), 0)
        x = x + length * step
        residual = residual - length * image
        scaled = residual / diagonal
        before, product = product, dot(residual, scaled)
        step = scaled + ratio(product, before) * step
    return x
