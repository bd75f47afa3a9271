from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from motor_geo.nn.functional.autocast import Function, full_precision
from motor_geo.nn.functional.kernel import has_kernel


@has_kernel
@full_precision
def cosine_transform(x: Tensor, inverse: bool = False) -> Tensor:
    r"""Orthonormal discrete cosine transform (type II) of rows,

    .. math::
        X_k = a_k \sum_{n=0}^{F-1} x_n \cos \frac{\pi (2n + 1) k}{2F}, \quad
        a_0 = \sqrt{1 / F}, \quad a_k = \sqrt{2 / F} ,

    or its inverse. The inverse is also the transpose: for weights
    :math:`\mathbf{W}`, :math:`\mathbf{W} \, \textrm{DCT}(\mathbf{x}) =
    \textrm{DCT}^{-1}(\mathbf{W}) \, \mathbf{x}`. The kernel transforms one block
    of rows at a time and applies the transpose in the backward pass.

    Args:
        x: Signals, or coefficients if :obj:`inverse` is set.
        inverse: If set to :obj:`True`, converts coefficients to signals.

    Shapes:
        - **input:** signals :math:`(N, F)` in single or double precision
        - **output:** coefficients :math:`(N, F)`
    """
    return (_signals if inverse else _coefficients)(x, *_factors(x))


@cosine_transform.kernel
def _(x: Tensor, inverse: bool = False) -> Tensor:
    return _CosineTransform.apply(x, inverse)


class _CosineTransform(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inverse: bool) -> Tensor:
        ctx.inverse = inverse
        return _in_blocks(x, _signals if inverse else _coefficients)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _in_blocks(grad, _coefficients if ctx.inverse else _signals), None


def _in_blocks(x: Tensor, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    scale, twiddle = _factors(x)
    out = torch.empty_like(x)
    rows = max(2**22 // x.size(1), 1)  # Limits the memory of complex intermediates.
    for start in range(0, x.size(0), rows):
        out[start : start + rows] = function(x[start : start + rows], scale, twiddle)
    return out


def _factors(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The factors :math:`a_k` and :math:`e^{-i \pi k / 2F}`."""
    size = x.size(1)
    k = torch.arange(size, dtype=torch.float64, device=x.device)
    scale = torch.full_like(k, math.sqrt(2 / size))
    scale[0] = math.sqrt(1 / size)
    twiddle = torch.polar(torch.ones_like(k), -math.pi * k / (2 * size))
    return scale.to(x.dtype), twiddle.to(torch.promote_types(x.dtype, torch.complex64))


def _coefficients(x: Tensor, scale: Tensor, twiddle: Tensor) -> Tensor:
    # Even entries followed by reversed odd entries need only a transform of the same length.
    x = torch.cat([x[:, ::2], x[:, 1::2].flip(1)], dim=1)
    return (torch.fft.fft(x) * twiddle).real * scale


def _signals(x: Tensor, scale: Tensor, twiddle: Tensor) -> Tensor:
    real = x / scale
    # The second half of the spectrum of a real signal mirrors the first half.
    imag = torch.cat([torch.zeros_like(real[:, :1]), -real[:, 1:].flip(1)], dim=1)
    x = torch.fft.ifft(torch.complex(real, imag) * twiddle.conj()).real
    half = (x.size(1) + 1) // 2
    out = torch.empty_like(x)
    out[:, ::2], out[:, 1::2] = x[:, :half], x[:, half:].flip(1)
    return out
