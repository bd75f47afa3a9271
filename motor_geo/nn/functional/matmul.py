r"""Dense matrix products with the fastest kernel available in PyTorch.

PyTorch multiplies float32 matrices with MKL, which uses only half of the
AVX-512 units on CPUs of other vendors than Intel. oneDNN, which is also part of
PyTorch, uses all of them and is 2.5 times as fast on AMD Zen 5. Neither
function is differentiable.
"""

from __future__ import annotations

import os.path as osp
import platform
from functools import cache

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor) -> Tensor:
    r"""The linear map :math:`\mathbf{X} \mathbf{W}^{\top}`.

    Shapes:
        - **input:** features :math:`(N, F)`, weight :math:`(d, F)`
        - **output:** vectors :math:`(N, d)`
    """
    size = _whole(x, weight)
    if size == 0:
        return x @ weight.t()
    out = _onednn(x[:size].contiguous(), weight.contiguous())
    return out if size == x.size(0) else torch.cat([out, x[size:] @ weight.t()])


def linear_grad(grad: Tensor, x: Tensor) -> Tensor:
    r"""The gradient of the weight of :func:`linear`.

    Shapes:
        - **input:** gradient :math:`(N, d)`, features :math:`(N, F)`
        - **output:** gradient :math:`(d, F)`
    """
    size = _whole(x, grad)
    if size == 0:
        return grad.t() @ x
    if grad.size(1) > x.size(1):  # Faster with the narrow side first.
        return linear_grad(x, grad).t()
    out = _onednn(grad[:size].t().contiguous(), x[:size].contiguous().t())
    return out if size == x.size(0) else out.addmm_(grad[size:].t(), x[size:])


#: oneDNN compiles and caches a kernel for every number of rows, so it only gets multiples of this.
ROWS = 256


def _whole(x: Tensor, other: Tensor) -> int:
    r"""Number of rows that oneDNN multiplies."""
    return x.size(0) // ROWS * ROWS if prefers_onednn(x) and other.dtype == x.dtype else 0


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    # With strides that are neither those of a matrix nor of its transpose, it is a hundred times
    # slower.
    return torch.ops.mkldnn._linear_pointwise(x.detach(), weight.detach(), None, 'none', [], '')


def prefers_onednn(x: Tensor) -> bool:
    r"""Whether oneDNN is faster than the default kernel of PyTorch."""
    return x.device.type == 'cpu' and x.dtype == torch.float32 and x.numel() > 0 and _slow_mkl()


@cache
def _slow_mkl() -> bool:
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != 'AVX512' or 'Intel' in _vendor():
        return False
    return hasattr(torch.ops.mkldnn, '_linear_pointwise')


def _vendor() -> str:
    if osp.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as file:
            for line in file:
                if line.startswith('vendor_id'):
                    return line.split(':')[1].strip()
    return platform.processor()
