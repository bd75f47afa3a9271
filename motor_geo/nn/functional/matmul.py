r"""Products of dense matrices by the fastest kernel that PyTorch brings.

PyTorch multiplies float32 matrices with MKL, which leaves half of the units of
CPUs with AVX-512 that are not Intel's unused. oneDNN, which PyTorch brings as
well, uses them: two and a half times the speed on AMD's Zen 5. Neither
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
    r"""The gradient of the weight of :meth:`linear`.

    Shapes:
        - **input:** gradient :math:`(N, d)`, features :math:`(N, F)`
        - **output:** gradient :math:`(d, F)`
    """
    size = _whole(x, grad)
    if size == 0:
        return grad.t() @ x
    if grad.size(1) > x.size(1):  # Faster, the narrow side first.
        return linear_grad(x, grad).t()
    out = _onednn(grad[:size].t().contiguous(), x[:size].contiguous().t())
    return out if size == x.size(0) else out.addmm_(grad[size:].t(), x[size:])


#: oneDNN compiles and keeps a kernel for every number of rows; it is given multiples of this.
ROWS = 256


def _whole(x: Tensor, other: Tensor) -> int:
    r"""Number of rows for oneDNN."""
    return x.size(0) // ROWS * ROWS if prefers_onednn(x) and other.dtype == x.dtype else 0


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    # Strides other than those of a matrix or its transpose are a hundred times as slow.
    return torch.ops.mkldnn._linear_pointwise(x.detach(), weight.detach(), None, 'none', [], '')


def prefers_onednn(x: Tensor) -> bool:
    r"""Whether oneDNN is faster than what PyTorch uses by itself."""
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
