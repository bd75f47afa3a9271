r"""Plain reference functions with faster kernels that compute the same values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import torch

P = ParamSpec('P')
T = TypeVar('T')


class has_kernel(Generic[P, T]):
    r"""Marks a plain function as the reference of a kernel.

    .. code-block:: python

        @has_kernel
        def double(x: Tensor) -> Tensor:
            return x + x

        @double.kernel
        def _(x: Tensor) -> Tensor:
            return _Double.apply(x)

    :obj:`double(x)` calls the kernel, and :obj:`double.reference(x)` the plain
    function. The plain function serves as documentation, :func:`torch.compile`
    and :obj:`torch.export` trace it, and the test of the kernel compares values
    and gradients with it.

    Args:
        reference: The plain function.
    """

    def __init__(self, reference: Callable[P, T]):
        self.reference = reference
        self._kernel = reference
        functools.update_wrapper(self, reference)

    def kernel(self, function: Callable[P, T]) -> Callable[P, T]:
        r"""Registers the faster function, which takes the same arguments."""
        self._kernel = function
        return function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return self.reference(*args, **kwargs)
        return self._kernel(*args, **kwargs)
