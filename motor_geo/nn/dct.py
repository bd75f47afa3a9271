from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_transform(x: Tensor) -> Tensor:
    r"""Orthonormal discrete cosine transform of type II along rows,

    .. math::
        X_k = a_k \sum_{n=0}^{F-1} x_n \cos \frac{\pi (2n + 1) k}{2F}, \quad
        a_0 = \sqrt{1 / F}, \quad a_k = \sqrt{2 / F} .

    Shapes:
        - **input:** signals :math:`(N, F)`, single or double precision
        - **output:** coefficients :math:`(N, F)`
    """
    size = x.size(1)
    k = torch.arange(size, dtype=torch.float64)
    scale = torch.full_like(k, math.sqrt(2 / size))
    scale[0] = math.sqrt(1 / size)
    twiddle = torch.polar(scale, -math.pi * k / (2 * size))
    twiddle = twiddle.to(x.device, torch.promote_types(x.dtype, torch.complex64))
    out = torch.empty_like(x)
    rows = max(2**22 // size, 1)  # Bounds the memory of complex intermediates.
    for start in range(0, x.size(0), rows):
        block = x[start : start + rows]
        # Even entries, then odd ones backwards: a transform of the same length.
        block = torch.cat([block[:, ::2], block[:, 1::2].flip(1)], dim=1)
        out[start : start + rows] = (torch.fft.fft(block) * twiddle).real
    return out
